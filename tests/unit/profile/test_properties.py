"""Any file gives a profile, or one line for each mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.safe_line import is_clean
from fakes.toml_writer import toml
from quantchat.engines.variant import DEMO_MODEL
from quantchat.profile.load import ProfileError, load, loads
from quantchat.profile.model import Profile
from quantchat.profile.template import template

FOLDER = Path("/profiles")
WHOLE = template()
PAIR = {
    "name": "pair",
    "variants": [
        {"label": "a", "engine": "gptq", "model": DEMO_MODEL, "quantize": {"bits": 4}},
        {"label": "b", "engine": "bitsandbytes", "model": "./b", "quant_type": "fp4"},
    ],
}


def load_or_complain(text: str) -> None:
    try:
        profile = loads(text, where="p\x1b.toml", folder=FOLDER)
    except ProfileError as error:
        assert error.lines
        assert all(is_clean(line) for line in (*error.lines, str(error)))
    else:
        assert isinstance(profile, Profile)


@given(st.text())
def test_any_text_is_a_profile_or_a_complaint(text: str) -> None:
    load_or_complain(text)


@given(st.data())
def test_a_damaged_profile_is_a_profile_or_a_complaint(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from([WHOLE, toml(PAIR)]))
    for _ in range(data.draw(st.integers(1, 3))):
        begin = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(begin, min(len(text), begin + 40)))
        scrap = st.text(max_size=8) | st.sampled_from(['"', '"""', "[", "\n[[variants]]\n", "\x1b"])
        text = text[:begin] + data.draw(scrap) + text[end:]
    load_or_complain(text)


KEYS = st.sampled_from(
    [
        *("name", "description", "variants", "generation", "run", "label", "model", "engine"),
        *("quantize", "bits", "device", "python", "quant_type", "temperature", "seed", "order"),
        *("gptq", "\x9b", ""),
    ]
)
SCALARS = (
    st.none().map(lambda _: "gptq")
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(st.characters(codec="utf-8"))
    | st.sampled_from(["bitsandbytes", "gptq", "nf4", "\x9b31m"])
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner), max_leaves=20
)


@given(st.dictionaries(KEYS, VALUES))
def test_any_toml_is_a_profile_or_a_complaint(tables: dict[str, Any]) -> None:
    load_or_complain(toml(tables))


@given(data=st.binary())
def test_any_file_is_a_profile_or_a_complaint(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_bytes(data)
    try:
        load(file)
    except ProfileError as error:
        assert all(is_clean(line) for line in error.lines)


LINE = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=60)
VARIANTS = st.lists(
    st.fixed_dictionaries(
        {
            "label": LINE,
            "engine": st.just("bitsandbytes"),
            "model": st.sampled_from(
                ["org/model", "gpt2", "org/model@refs/pr/1", "/m", DEMO_MODEL]
            ),
        },
        optional={
            "quant_type": st.sampled_from(["nf4", "fp4", "int8"]),
            "double_quant": st.booleans(),
            "python": st.just("/usr/bin/python3"),
        },
    ),
    min_size=2,
    max_size=4,
    unique_by=lambda variant: str(variant["label"]),
)
PROFILES = st.fixed_dictionaries(
    {"name": LINE, "variants": VARIANTS},
    optional={
        "description": st.text(st.characters(codec="utf-8")),
        "generation": st.fixed_dictionaries(
            {},
            optional={
                "system": st.text(st.characters(codec="utf-8")),
                "temperature": st.floats(0, 10),
                "seed": st.integers(0, 2**63 - 1),
            },
        ),
    },
)


@given(PROFILES)
def test_every_valid_profile_is_read_as_it_was_meant(meant: dict[str, Any]) -> None:
    assert loads(toml(meant), where="p.toml", folder=FOLDER) == Profile.model_validate(meant)
