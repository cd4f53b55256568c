"""The template for new profiles and the JSON Schema, both generated from the models."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quantchat.engines.gptq import Gptq
from quantchat.profile.load import loads
from quantchat.profile.mistakes import TABLES
from quantchat.profile.model import Profile
from quantchat.profile.schema import json_schema
from quantchat.profile.template import template


def read(text: str) -> Profile:
    return loads(text, where="template", folder=Path("/"))


def test_the_template_is_a_profile() -> None:
    assert [variant.engine for variant in read(template()).variants] == ["gptq", "bitsandbytes"]


def test_what_it_comments_out_is_the_default() -> None:
    # Neither `env` goes with `python`, nor a draft with `kv_cache`: these are left comments.
    text, count = re.subn(r"(?m)^#(?=\w+ = )(?!env = |draft)", "", template())
    whole = read(text)
    first = whole.variants[0]
    assert count > 20
    assert isinstance(first, Gptq)
    assert first.quantize is not None
    # These have no default to show, but an example.
    assert first.python is not None
    assert first.adapter is not None
    assert first.tokenizer is not None
    assert first.thought_marks is not None
    made = ("calibration", "samples", "sample_tokens")
    assert all(getattr(first.quantize, name) is not None for name in made)
    without = first.quantize.model_copy(update=dict.fromkeys(made))
    assert first.kv_cache is not None
    examples = ("python", "adapter", "tokenizer", "thought_marks", "kv_cache")
    first = first.model_copy(update={**dict.fromkeys(examples), "quantize": without})
    second = whole.variants[1].model_copy(update={"adapter": None})
    shown = whole.model_copy(update={"variants": [first, second]})
    assert shown == read(template())


OTHERS = (
    "Transformers", "OpenAI", "Server", "Profile", "Gguf", "QuantizeAutoRound", "QuantizeGguf",
)  # fmt: skip
"""Tables that the template does not have: it has a GPTQ and a bitsandbytes variant."""


def test_it_names_every_key() -> None:
    for name, definition in objects():
        if name in OTHERS:
            continue
        for key in definition["properties"]:
            assert re.search(rf"(?m)^(#?{key} = |\[variants\.{key}\])", template()), key


def objects() -> Iterator[tuple[str, dict[str, Any]]]:
    schema: dict[str, Any] = dict(json_schema())
    yield "Profile", schema
    yield from schema["$defs"].items()


def test_the_schema_knows_its_dialect_and_refuses_unknown_keys() -> None:
    assert json_schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert json_schema()["required"] == ["name", "variants"]
    for _, definition in objects():
        assert definition["additionalProperties"] is False


def test_the_schema_describes_every_key() -> None:
    for name, definition in objects():
        for key, value in definition["properties"].items():
            assert value.get("description"), f"{name}.{key}"


def test_mistakes_know_every_table() -> None:
    known = {model.__name__ for model, _ in TABLES.values()} - {"VariantBase"}
    assert {name for name, _ in objects()} == known
