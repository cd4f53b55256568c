"""Any bytes that a server streams become checked records or one error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantchat.wire.messages import Finished, Tokens
from quantchat.wire.protocol import decode_event, encode
from quantchat.worker.servers.stream import Record, ServerError, StreamReader, Usage

USAGE = {"prompt_tokens": 11, "completion_tokens": 2, "total_tokens": 13}


def chunk(delta: Any, reason: Any = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    about = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "tiny"}
    return {**about, "system_fingerprint": "b1", "choices": [choice], **more}


GOOD = [
    chunk({"role": "assistant", "content": ""}),
    chunk({"reasoning_content": "Hm."}),
    chunk({"content": "It is "}),
    chunk({"content": "Paris."}),
    chunk({}, "stop"),
    {**chunk({}), "choices": [], "usage": USAGE},
]


def sse(*chunks: Any, done: bool = True) -> bytes:
    lines = [f"data: {one if isinstance(one, str) else json.dumps(one)}\n\n" for one in chunks]
    return "".join([*lines, "data: [DONE]\n\n" if done else ""]).encode()


def read(data: bytes, *, size: int = 0) -> list[Record]:
    """The records of `data`, which comes in pieces of `size` bytes."""
    reader = StreamReader()
    step = size or len(data) or 1
    found = [one for at in range(0, len(data), step) for one in reader.feed(data[at : at + step])]
    return [*found, *reader.end()]


def said(records: list[Record]) -> tuple[str, str, str, Usage]:
    usage = Usage()
    for one in records:
        usage = usage.updated(one.usage or usage)
    text, thought = ("".join(getattr(one, name) for one in records) for name in ("text", "thought"))
    return text, thought, "".join(one.reason for one in records), usage


WHOLE = ("It is Paris.", "Hm.", "stop", Usage(11, 2))


def test_a_good_stream() -> None:
    records = read(sse(*GOOD))
    assert said(records) == WHOLE
    assert {one.build for one in records} == {"b1"}


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_however_lines_end_and_bytes_are_cut(ends: str) -> None:
    data = sse(*GOOD).replace(b"\n", ends.encode())
    assert all(said(read(data, size=size)) == WHOLE for size in (1, 2, 3, 7, 64))


@pytest.mark.parametrize(
    "between",
    [
        "data: null\n\n",
        ": ping\n\n",
        "id: 7\n: ping\n\n",
        "id: 7\n\n",
        "event: ping\ndata: {}\n\n",
        "retry: 3000\n\n",
        "data:\n\n",
        "data: []\n\n",
        'data: "x"\n\n',
        "\ufeff\n\n",
    ],
)
def test_what_is_no_chunk_is_passed_over(between: str) -> None:
    chunks = [f"data: {json.dumps(one)}\n\n" for one in GOOD]
    assert said(read(between.join(["", *chunks, ""]).encode())) == WHOLE


JSON_VALUES: tuple[Any, ...] = (
    None, True, 7, -7, 6.5, 2**63, 10**30, "7", "", [], {}, [1], {"a": 1}, [None], [[[]]],
    float("nan"), "\ud83d",
)  # fmt: skip


def altered(value: Any) -> Iterator[Any]:
    """`value` with each field in it dropped, or of another type."""
    yield from JSON_VALUES
    if isinstance(value, dict):
        for key, inner in value.items():
            yield {name: one for name, one in value.items() if name != key}
            yield from ({**value, key: other} for other in altered(inner))
    elif isinstance(value, list):
        yield []
        for place, inner in enumerate(value):
            yield from ([*value[:place], other, *value[place + 1 :]] for other in altered(inner))


def assert_sendable(records: list[Record]) -> None:
    """Whether the worker can send what was read, and the near side can read it."""
    text, thought, reason, usage = said(records)
    assert all(type(n) is int and -1 <= n < 2**63 for n in vars(usage).values())
    tokens = Tokens(1, [-1] * len(records), [one.text for one in records], [1] * len(records))
    end = Finished(1, reason, usage.output, text, 1, thoughts=thought)
    for event in (tokens, end):
        assert decode_event(encode(event)) == event
    "".join([text, thought, reason, *(one.build for one in records)]).encode()


def test_each_field_dropped_nulled_and_retyped() -> None:
    tried = refused = 0
    for place, good in enumerate(GOOD):
        for other in altered(good):
            tried += 1
            try:
                records = read(sse(*GOOD[:place], json.dumps(other), *GOOD[place + 1 :]))
            except ServerError as error:
                refused += 1
                assert str(error)
            else:
                assert_sendable(records)
    assert tried > 1000 and refused == 0


def test_a_stream_that_is_cut_at_any_byte_is_the_beginning_of_a_good_one() -> None:
    data = sse(*GOOD)
    for end in range(len(data)):
        if 0 < end < len("data:"):
            continue  # that could be any text
        text, thought, reason, usage = said(read(data[:end]))
        assert WHOLE[0].startswith(text) and WHOLE[1].startswith(thought)
        assert reason in ("", "stop") and usage in (Usage(), Usage(11, 2))
        assert not reason or text == WHOLE[0]


@given(st.lists(st.one_of(st.binary(max_size=40), st.sampled_from(sse(*GOOD).split(b"\n")))))
def test_any_bytes_are_records_or_one_error(pieces: list[bytes]) -> None:
    for joint in (b"", b"\n", b"\n\ndata: "):
        try:
            assert_sendable(read(joint.join(pieces), size=11))
        except ServerError as error:
            str(error).encode("utf-8", "surrogatepass")


KEYS = [
    "choices",
    "delta",
    "message",
    "content",
    "text",
    "thinking",
    "reasoning",
    "usage",
    "completion_tokens",
    "prompt_tokens",
    "prompt_tokens_details",
    "finish_reason",
    "index",
    "error",
    "detail",
    "object",
    "system_fingerprint",
]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(json_values, st.booleans())
def test_any_json_is_records_or_one_error(value: Any, streamed: bool) -> None:
    data = sse(json.dumps(value)) if streamed else json.dumps(value).encode()
    try:
        assert_sendable(read(data))
    except ServerError as error:
        assert str(error)


USAGES = [
    ({"prompt_tokens": 11, "completion_tokens": None}, Usage(11, -1)),
    ({"prompt_tokens": 11, "completion_tokens": "7"}, Usage(11, -1)),
    ({"prompt_tokens": 11, "completion_tokens": 6.5}, Usage(11, -1)),
    ({"prompt_tokens": 11, "completion_tokens": True}, Usage(11, -1)),
    ({"prompt_tokens": 11, "completion_tokens": {"a": 1}}, Usage(11, -1)),
    ({"prompt_tokens": 11, "completion_tokens": 2**63}, Usage(11, -1)),
    ({"prompt_tokens": 11, "completion_tokens": 2**63 - 1}, Usage(11, 2**63 - 1)),
    ({"prompt_tokens": 10**400, "completion_tokens": 2}, Usage(-1, 2)),
    ({"prompt_tokens_details": {"cached_tokens": 4}}, Usage()),
    ({**USAGE, "prompt_tokens_details": {"cached_tokens": 4}}, Usage(11, 2, 4)),
    ({**USAGE, "prompt_tokens_details": [4]}, Usage(11, 2)),
    ({**USAGE, "completion_tokens_details": {"reasoning_tokens": 1}}, Usage(11, 2, -1, 1)),
    ({"prompt_tokens": 0, "completion_tokens": 0}, Usage()),
    ([11, 2], Usage()),
    ("many", Usage()),
]


@pytest.mark.parametrize(("usage", "counted"), USAGES)
def test_a_count_of_another_type_is_not_reported(usage: Any, counted: Usage) -> None:
    assert said(read(sse(chunk({"content": "a"}, "stop", usage=usage))))[3] == counted


PARTS = [
    ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, ("ab", "")),
    ({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "a"}]}]}, ("", "a")),
    ({"content": ["a", 5, None]}, ("a", "")),
    ({"content": 5}, ("", "")),
    ("a", ("a", "")),
    ({"content": "a", "reasoning": "b", "reasoning_content": "b"}, ("a", "b")),
    ({"content": None, "reasoning": "b"}, ("", "b")),
    ({"refusal": "I cannot."}, ("I cannot.", "")),
]


@pytest.mark.parametrize(("delta", "both"), PARTS)
def test_text_and_thoughts_of_a_chunk(delta: Any, both: tuple[str, str]) -> None:
    assert said(read(sse(chunk(delta, "stop"))))[:2] == both


def test_characters_that_are_no_utf8_or_come_in_halves() -> None:
    emoji = json.dumps("\U0001f600")  # two escapes
    first, second = (chunk({"content": "X"}), chunk({"content": "Y"}))
    data = sse(json.dumps(first).replace('"X"', f'{emoji[:7]}"'),
               json.dumps(second).replace('"Y"', f'"{emoji[7:]}'))  # fmt: skip
    assert said(read(data))[0] == "\U0001f600"
    assert said(read(sse(chunk({"content": "\ude00b"}))))[0] == "�b"
    assert said(read(sse(chunk({"content": "XX"})).replace(b"XX", b"\xe4\xbd")))[0] == "�"


ERRORS = [
    (b'error: {"code": 500, "message": "no room"}\n\n', "no room"),
    (b"event: error\ndata: no room\n\n", "no room"),
    (b'event: error\ndata: {"message": "no room", "code": 502}\n\n', "no room"),
    (sse({"error": "no room"}), "no room"),
    (sse({"error": {"message": "no room"}}), "no room"),
    (sse({"object": "error", "message": "no room"}), "no room"),
    (sse({**chunk({}, "error"), "error": {"message": "no room"}}), "no room"),
    (b'{"error": {"message": "no room", "code": 500}}', "no room"),
    (b'{\n  "error": {\n    "message": "no room"\n  }\n}\n', "no room"),
    (b'{"detail": "no room"}', "no room"),
    (b"<html><style>p {}</style><body>Please <b>log in</b></body></html>", "Please log in"),
    (b"upstream connect error", "upstream connect error"),
    (b'data: {"choices": [\n\n', '{"choices": ['),
    (sse("[" * 100_000), "not JSON"),
]


@pytest.mark.parametrize(("data", "word"), ERRORS)
def test_what_the_server_said_is_the_error(data: bytes, word: str) -> None:
    for before in (b"", sse(*GOOD[:4], done=False)):
        if before and not data.startswith((b"data", b"event", b"error")):
            continue  # a page comes in place of a stream
        with pytest.raises(ServerError, match=word.replace("[", r"\[").replace("{", r"\{")):
            read(before + data)


def test_a_whole_answer_without_streaming() -> None:
    message = {"role": "assistant", "content": "It is Paris.", "reasoning_content": "Hm."}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = {"object": "chat.completion", "choices": [choice], "usage": USAGE}
    for data in (json.dumps(body), json.dumps(body, indent=2)):
        (record,) = read(data.encode())
        assert said([record]) == WHOLE and record.whole
    del choice["finish_reason"]
    assert said(read(json.dumps(body).encode()))[2] == "stop"


@pytest.mark.parametrize("reason", [7, True, {"a": 1}, ["stop"]])
def test_a_reason_of_another_type_ends_the_answer(reason: Any) -> None:
    assert said(read(sse(chunk({"content": "a"}, reason))))[2] == json.dumps(reason)


def test_only_the_first_choice_is_the_answer() -> None:
    choices = [{"index": n, "delta": {"content": f"c{n}"}} for n in (1, 0, 2)]
    assert said(read(sse({"choices": choices})))[0] == "c0"


def test_a_long_line_is_read_in_one_pass() -> None:
    """In pieces as a network gives them: what was read is not looked at again."""
    data = sse(chunk({"content": "word " * 1_000_000}, "stop"))
    assert len(said(read(data, size=1 << 16))[0]) == 5_000_000
