"""Messages: decoding returns what was encoded, and invalid input is reported as such."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantchat.wire import protocol
from quantchat.wire.codec import LARGEST_INTEGER, ProtocolError
from quantchat.wire.jobs import JOBS, JobResult, ScoreJob, ScoreResult, Workspace
from quantchat.wire.messages import Failed, Finished, LoadModel
from quantchat.wire.protocol import decode_command, decode_event, encode

# Any code point at all, lone surrogates too: a model's text may hold anything.
text = st.text(st.characters(), max_size=40)
size = st.integers(-1, LARGEST_INTEGER)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    int: size,
    str: text,
    bool: st.booleans(),
    float: st.floats(allow_nan=False),
    object: text | st.lists(size, max_size=2),
    Any: text | st.lists(size, max_size=2),
}


def of_type(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a type that messages use; KeyError for a type that the codec does not know."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return whole(hint)
    if origin is list:
        return st.lists(of_type(arguments[0]), max_size=2)
    if origin in (dict, Mapping):
        return st.dictionaries(text, of_type(arguments[1]), max_size=2)
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if origin in (typing.Union, types.UnionType):
        (inner,) = (one for one in arguments if one is not type(None))
        return st.none() | of_type(inner)
    return SCALARS[hint]


def whole(cls: type[Any]) -> st.SearchStrategy[Any]:
    """The dataclass with a value for each field, also for those that have a default."""
    hints = typing.get_type_hints(cls)
    fields = {field.name: of_type(hints[field.name]) for field in dataclasses.fields(cls)}
    return st.builds(cls, **fields)


def classes(union: Any) -> list[type[Any]]:
    return [one for one in typing.get_args(union) if isinstance(one, type)]


COMMANDS = [*classes(protocol.Command), *JOBS]
EVENTS = [*classes(protocol.Event), *classes(JobResult)]


@pytest.mark.parametrize("cls", [*COMMANDS, *EVENTS], ids=lambda cls: cls.__name__)
@settings(max_examples=15)
@given(st.data())
def test_each_message_survives_the_wire(cls: type[Any], data: st.DataObject) -> None:
    message = data.draw(whole(cls))
    line = encode(message)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert (decode_command if cls in COMMANDS else decode_event)(line) == message


@pytest.mark.parametrize("cls", [*COMMANDS, *EVENTS], ids=lambda cls: cls.__name__)
@settings(max_examples=15)
@given(st.data())
def test_a_spoilt_message_is_a_protocol_error(cls: type[Any], data: st.DataObject) -> None:
    body = json.loads(encode(data.draw(whole(cls))))
    name = data.draw(st.sampled_from([*sorted(body.keys() - {"type"}), "colour"]))
    body[name] = data.draw(json_values)
    decode = decode_command if cls in COMMANDS else decode_event
    try:
        found = decode(json.dumps(body).encode())
    except ProtocolError as error:
        assert "\n" not in str(error)
    else:
        assert name != "colour"
        assert isinstance(found, cls)


def test_each_job_names_its_result() -> None:
    results = dict.fromkeys(job.result_type() for job in JOBS)  # two jobs may share one
    assert list(results) == classes(JobResult)
    assert ScoreJob.result_type() is ScoreResult
    assert len({job.title for job in JOBS}) == len(JOBS)


def test_a_word_that_is_not_listed_is_refused() -> None:
    line = encode(Failed("internal", "")).replace(b"internal", b"eternal")
    with pytest.raises(ProtocolError, match="'eternal' is not an allowed value"):
        decode_event(line)


def test_a_nested_load_is_decoded_strictly() -> None:
    load = LoadModel("gptq", "model", {})
    body = json.loads(encode(ScoreJob(load, "text", 64, 64, Workspace("", ""))))
    body["load"]["color"] = "red"
    with pytest.raises(ProtocolError, match="LoadModel: unknown field 'color'"):
        decode_command(json.dumps(body).encode())


@given(st.binary(max_size=60))
def test_rubbish_is_a_protocol_error(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_event(line)


@given(
    st.sampled_from(["Tokens", "Memory", "Ready", "Failed", "Progress", "ScoreResult", "Nonsense"]),
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
    assert found.prompt_tokens == max(-LARGEST_INTEGER, min(count, LARGEST_INTEGER))


def test_a_bool_is_no_number() -> None:
    with pytest.raises(ProtocolError, match=r"Stop\.turn"):
        decode_command(b'{"type":"Stop","turn":true}')


def test_each_message_is_listed_once() -> None:
    names = [cls.__name__ for cls in (*COMMANDS, *EVENTS)]
    assert len(set(names)) == len(names)
