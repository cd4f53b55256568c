"""The reference model to which a profile's variants are compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fakes.saved_snapshots import RESOLVED
from quantchat.engines.transformers import Transformers
from quantchat.errors import UserError
from quantchat.measuring.score_plan import floor_of
from quantchat.profile import library
from quantchat.profile.load import load
from quantchat.profile.model import Profile
from quantchat.session.reference import reference_of

NF4 = {"label": "NF4", "engine": "bitsandbytes", "model": "org/base", "device": "cuda:1"}
GPTQ = {"label": "GPTQ", "engine": "gptq", "model": "org/base-gptq"}
MADE = {"label": "GPTQ here", "engine": "gptq", "model": "org/base", "quantize": {}}
PLAIN = {"label": "bf16", "engine": "transformers", "model": "org/base", "dtype": "bfloat16"}
OTHER = {"label": "AWQ", "engine": "transformers", "model": "org/base-awq"}
GGUF = {"label": "Q4", "engine": "transformers", "model": "org/base", "gguf_file": "q4.gguf"}
OLD = {"label": "old", "engine": "auto-gptq", "model": "org/old", "python": "python3"}

SERVER = {"label": "vLLM", "engine": "openai", "model": "m", "base_url": "http://127.0.0.1:1/v1"}


def profile(*variants: dict[str, Any]) -> Profile:
    return Profile.model_validate({"name": "test", "variants": list(variants)})


def test_the_demo_is_held_against_its_own_bf16() -> None:
    asked = load(library.find("demo"))
    assert reference_of(asked, None) is asked.variants[2]


def test_the_base_of_what_is_quantized_here() -> None:
    found = reference_of(profile(GPTQ, NF4), None)
    assert isinstance(found, Transformers)
    assert (found.model, found.label, found.device) == ("org/base", "base", "cuda:1")
    assert found.dtype == "auto"
    assert reference_of(profile(GPTQ, MADE), None).model == "org/base"
    told = {"chat_template_kwargs": {"enable_thinking": False}}
    asked_alike = reference_of(profile(GPTQ, {**MADE, **told}), None)
    assert asked_alike.chat_template_kwargs == told["chat_template_kwargs"]
    # Not the other checkpoint that transformers loads, which may be quantized itself.
    assert reference_of(profile(OTHER, NF4), None).label == "base"
    assert reference_of(profile(OTHER, NF4, GGUF, PLAIN), None).label == "bf16"


def test_a_plain_one_where_none_is_quantized_here() -> None:
    assert reference_of(profile(GPTQ, PLAIN), None).label == "bf16"


def test_where_nothing_tells_the_base_it_must_be_named() -> None:
    with pytest.raises(UserError, match="made from") as caught:
        reference_of(profile(GPTQ, OLD), None)
    assert "--reference" in caught.value.hint


def test_a_variant_or_a_model_by_name(tmp_path: Path) -> None:
    asked = profile(NF4, PLAIN)
    assert reference_of(asked, "NF4") is asked.variants[0]
    assert reference_of(asked, "org/large@v2").model == "org/large@v2"
    assert reference_of(asked, str(tmp_path)).label == tmp_path.name
    assert reference_of(asked, "org/bf16").label == "bf16, reference"  # a label of its own
    assert reference_of(asked, "demo:smollm2-135m-instruct").label == "smollm2-135m-instruct"


@pytest.mark.parametrize(
    ("word", "hint"),
    [("nf5", 'did you mean "NF4"?'), ("zzz", "one of: NF4, bf16; or a model"), ("org/a b", "")],
)
def test_what_is_neither(word: str, hint: str) -> None:
    with pytest.raises(UserError) as caught:
        reference_of(profile(NF4, PLAIN), word)
    assert caught.value.where == word
    assert hint in caught.value.hint


def test_the_floor_is_the_reference_with_one_thing_changed() -> None:
    asked = profile(NF4, PLAIN, OLD)
    reference, old = asked.variants[1], asked.variants[2]
    changed = floor_of(reference, RESOLVED, "attention")
    assert changed is not None
    assert (changed.label, changed.attention) == ("bf16, eager attention", "eager")
    assert (changed.model, changed.dtype) == (reference.model, reference.dtype)
    changed = floor_of(reference, RESOLVED, "dtype")
    assert changed is not None
    assert (changed.label, changed.dtype) == ("bf16, float32", "float32")
    assert floor_of(reference, RESOLVED, "none") is None
    assert floor_of(old, RESOLVED, "attention") is None


def test_a_long_label_stays_within_its_bounds() -> None:
    long = {**PLAIN, "label": "x" * 60}
    changed = floor_of(profile(NF4, long).variants[1], RESOLVED, "dtype")
    assert changed is not None
    assert len(changed.label) <= 60
    assert changed.label.endswith(", float32")


@pytest.mark.parametrize("word", [None, "bf16"])
def test_a_server_is_compared_with_a_reference(word: str | None) -> None:
    assert reference_of(profile(PLAIN, SERVER), word).label == "bf16"


def test_a_server_is_no_reference() -> None:
    with pytest.raises(UserError, match="a server cannot be the reference") as refused:
        reference_of(profile(PLAIN, SERVER), "vLLM")
    assert refused.value.where == "vLLM"
