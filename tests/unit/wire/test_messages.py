"""The wire: what is sent is what arrives, and rubbish is named as such."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantchat.wire import messages as protocol
from quantchat.wire.codec import MOST, ProtocolError
from quantchat.wire.messages import (
    Event,
    Failed,
    Finished,
    Generate,
    Load,
    Memory,
    Message,
    Sampling,
    Tokens,
    decode_command,
    decode_event,
    encode,
)
from quantchat.wire.variant import Ledger

# Any code point at all, lone surrogates too: a model's text may hold anything.
text = st.text(st.characters(), max_size=40)
size = st.integers(-1, MOST)
ledgers = st.builds(
    Ledger,
    device=text,
    weights=size,
    weights_by_dtype=st.dictionaries(text, size, max_size=3),
    kv_cache=size,
    other_live=size,
    slack=size,
    non_torch=size,
    process=size,
    peak=size,
    at_ns=size,
    weights_by_device=st.dictionaries(text, size, max_size=3),
    reserved_by_device=st.dictionaries(text, size, max_size=3),
)
events: st.SearchStrategy[Event] = st.one_of(
    st.builds(
        Tokens,
        turn=size,
        ids=st.lists(size, max_size=5),
        pieces=st.lists(text, max_size=5),
        times_ns=st.lists(size, max_size=5),
    ),
    st.builds(Memory, ledger=ledgers),
    st.builds(Finished, turn=size, reason=text, output_tokens=size, text=text, finished_ns=size),
    st.builds(Failed, kind=text, reason=text, hint=text),
)


@given(events)
def test_events_survive_the_wire(event: Event) -> None:
    line = encode(event)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert decode_event(line) == event


@given(st.lists(st.builds(Message, role=text, content=text), max_size=4), text)
def test_commands_survive_the_wire(messages: list[Message], model: str) -> None:
    generate = Generate(3, messages, Sampling(temperature=1.0), 10)
    assert decode_command(encode(generate)) == generate
    load = Load("gptq", model, {"kernel": "auto"}, revision=None)
    assert decode_command(encode(load)) == load


@given(st.binary(max_size=60))
def test_rubbish_is_a_protocol_error(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_event(line)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)


@given(
    st.sampled_from(["Tokens", "Memory", "Ready", "Failed", "Progress", "Stop", "Nonsense"]),
    st.dictionaries(st.sampled_from(["turn", "ids", "ledger", "kind", "stage", "x"]), json_values),
)
def test_wrong_fields_never_raise_anything_else(kind: str, body: dict[str, object]) -> None:
    line = json.dumps({"type": kind, **body}).encode()
    try:
        decode_event(line)
    except ProtocolError as error:
        assert "\n" not in str(error)


def test_an_unknown_field_is_named() -> None:
    with pytest.raises(ProtocolError, match="unknown field 'colour'"):
        decode_command(b'{"type":"Stop","turn":1,"colour":"red"}')


def test_a_missing_field_is_named() -> None:
    with pytest.raises(ProtocolError, match="turn"):
        decode_command(b'{"type":"Stop"}')


@given(st.integers())
def test_a_count_of_any_size_becomes_one_that_a_snapshot_can_hold(count: int) -> None:
    line = encode(Finished(1, "eos", 3, "", 5, prompt_tokens=count))
    found = decode_event(line)
    assert isinstance(found, Finished)
    assert found.prompt_tokens == max(-MOST, min(count, MOST))


def test_a_bool_is_no_number() -> None:
    with pytest.raises(ProtocolError, match=r"Stop\.turn"):
        decode_command(b'{"type":"Stop","turn":true}')


def test_each_message_is_listed_once() -> None:
    assert not set(protocol._COMMANDS) & set(protocol._EVENTS)
