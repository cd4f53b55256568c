"""A written snapshot can be read again, with any secrets in the environment and any numbers."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.saved_snapshots import (
    LEDGER,
    MODEL_INFO,
    SAMPLE,
    answer,
    hostile,
    hostile_snapshots,
    snapshot,
    variant,
)
from quantchat.errors import UserError
from quantchat.profile import schema as profile_schema
from quantchat.snapshot import store
from quantchat.snapshot.schema import Snapshot, TurnRecord, json_schema


def _shape(value: Any) -> Any:
    """The structure and the numbers of parsed JSON, without its strings."""
    if isinstance(value, dict):
        return {key: _shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_shape(item) for item in value]
    return "" if isinstance(value, str) else value


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


def _own_words(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        words = [*schema.get("enum", ()), schema.get("const")]
        yield from (word for word in words if isinstance(word, str))
        schema = list(schema.values())
    for item in schema if isinstance(schema, list) else ():
        yield from _own_words(item)


_FORMAT = json.dumps([json_schema(), profile_schema.json_schema()])
_SECRETS = (
    st.sampled_from(sorted(set(re.findall(r"\w{4,}", _FORMAT))))
    | st.sampled_from(['{"name":', '","', "2026-11-03", "00000000", "01010101", "T14:25:01+01:00"])
    | st.text(min_size=8, max_size=20)
    | st.integers(0, 2**64).map(str)
)


@given(hostile_snapshots, st.lists(_SECRETS, max_size=4))
@settings(max_examples=40, deadline=None)
def test_any_secrets_leave_structure_and_numbers(saved: Snapshot, values: list[str]) -> None:
    plain = store.dumps(saved)
    values = [value.replace("\0", "") for value in values if value.isprintable()]
    named = {f"N{number}_API_KEY": value for number, value in enumerate(values)}
    with mock.patch.dict(os.environ, named):
        data = store.dumps(saved)
        store.loads(data, where="x")
    assert _shape(json.loads(data)) == _shape(json.loads(plain))


@pytest.mark.parametrize("word", sorted(set(_own_words(json.loads(_FORMAT)))))
def test_a_secret_that_is_a_word_of_the_format_leaves_it(
    word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DB_PASSWORD", word)
    profile = {"name": "x", "variants": [{"label": "a", "engine": word}]}
    saved = snapshot(profile=profile)
    assert store.loads(store.dumps(saved), where="x") == saved


def test_a_secret_is_taken_out_of_each_string(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = 'canary "7" \\Qz\né'
    monkeypatch.setenv("DB_PASSWORD", secret)
    saved = hostile(f"before\n{secret} after")
    assert not any(secret in text for text in _strings(json.loads(store.dumps(saved))))
    assert store.loads(store.dumps(saved), where="x") == hostile("before\n[DB_PASSWORD] after")


def test_a_token_of_the_hub_is_taken_out_at_the_beginning_of_a_line() -> None:
    assert store.loads(store.dumps(hostile("\nhf_" + "a1B2" * 8)), where="x") == hostile(
        "\n[token]"
    )


@given(st.integers(), st.integers(-(10**40), 10**40), st.floats(allow_nan=False))
@settings(deadline=None)
def test_any_number_is_saved_so_that_it_can_be_read(one: int, two: int, three: float) -> None:
    saved = snapshot(
        profile={"name": "x", "options": {"one": one, "list": [two]}},
        turns=[
            TurnRecord(
                number=two,
                prompt="",
                divergence_point=one,
                answers=[answer("a", cached_tokens=two)],
            )
        ],
        variants=[variant("a", model_info=dataclasses.replace(MODEL_INFO, context_length=two))],
        environment=snapshot().environment.model_copy(
            update={"device": dataclasses.replace(SAMPLE, at_s=three)}
        ),
    )
    read = store.loads(store.dumps(saved), where="x")
    (turn,) = read.turns
    assert turn.number == turn.answers[0].cached_tokens == max(-(2**63) + 1, min(two, 2**63 - 1))


def test_what_could_not_be_read_again_is_kept_and_no_snapshot(tmp_path: Path) -> None:
    nan: Any = float("nan")  # of another type than the field's, which dataclasses do not check
    broken = snapshot(variants=[variant("a", ledger=dataclasses.replace(LEDGER, weights=nan))])
    with pytest.raises(UserError, match=r"unreadable: cannot be saved as a snapshot: .*weights"):
        store.save(broken, tmp_path)
    (kept,) = tmp_path.iterdir()
    assert json.loads(kept.read_bytes())["name"] == broken.name
    assert store.newest(tmp_path) == []
