"""Read what a server streams: bytes in, checked records out, whatever the bytes are.

The format is that of server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events)
with OpenAI's chunks in them. Servers and proxies deviate from both, so nothing is taken for granted
here: a field may be missing, null or of another type. `StreamReader` raises `ServerError` with the
server's own words where it says why there is no answer, and nothing else.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MOST_COUNTED = 2**63
"""Counts from here on fit no snapshot, and no server has counted so many tokens."""
_MOST_NAME = 200
"""Characters of a name that a server gives (its build, a reason) that are kept."""
_LINE_ENDS = re.compile(rb"\r\n|\r|\n")
_TAGS = re.compile(r"<(script|style)\b.*?</\1\s*>|<[^>]*>", re.DOTALL | re.IGNORECASE)
_HALVES = re.compile("[\ud800-\udfff]")
"""Halves of surrogate pairs, which JSON can escape and UTF-8 cannot hold."""


@dataclass(frozen=True)
class Usage:
    """A server's counts of tokens; -1 where it does not report one."""

    prompt: int = -1
    output: int = -1
    cached: int = -1
    thoughts: int = -1
    """Output tokens that were reasoning."""

    def updated(self, newer: Usage) -> Usage:
        """The counts of `newer`, and these where it reports none."""
        pairs = zip(vars(self).items(), vars(newer).values(), strict=True)
        return Usage(**{name: old if new < 0 else new for (name, old), new in pairs})


@dataclass(frozen=True)
class Record:
    """One chunk of an answer, checked."""

    text: str = ""
    thought: str = ""
    """Reasoning, which is no part of the answer."""
    reason: str = ""
    """Why the answer ends here, in the server's words; empty while it goes on."""
    usage: Usage | None = None
    build: str = ""
    """What the server says it is (`system_fingerprint`)."""
    whole: bool = False
    """Whether this is a whole answer, sent without streaming."""


class ServerError(Exception):
    """What a server said in place of an answer, or of the rest of one.

    `body` is its error as JSON, or text.
    """

    def __init__(self, body: Any) -> None:
        super().__init__(body if isinstance(body, str) else json.dumps(body))
        self.body = body


# ---------------------------------------------------------------- JSON that may be anything


def count(value: Any) -> int:
    """`value` where it is a count of tokens; -1 where it is anything else."""
    return value if type(value) is int and 0 <= value < MOST_COUNTED else -1


def name(value: Any) -> str:
    """`value` where it is a string, shortened; else empty."""
    return whole_characters(value)[:_MOST_NAME] if isinstance(value, str) else ""


def mapping(value: Any) -> dict[str, Any]:
    """`value` where it is an object; else an empty one."""
    return value if isinstance(value, dict) else {}


def parsed(text: str | bytes) -> Any:
    """The JSON value in `text`. Raises ValueError."""
    try:
        return json.loads(text, parse_int=_integer)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) < 20 else float(digits)  # Python refuses 5000 digits


def whole_characters(text: str) -> str:
    """`text` with its surrogate pairs joined, and U+FFFD for halves that stand alone."""
    if not _HALVES.search(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


# ---------------------------------------------------------------- chunks


def record_of(chunk: Any) -> Record | None:
    """What the JSON value `chunk` holds of an answer; None where it holds nothing.

    Raises ServerError where it is an error.
    """
    if not isinstance(chunk, dict):
        return None
    if error := _error_in(chunk):
        raise ServerError(error)
    choice = _first_choice(chunk.get("choices"))
    message = choice.get("message")
    said = choice.get("delta") or message
    text, thought = _parts(said.get("content") if isinstance(said, dict) else said)
    fields = mapping(said)
    text = text or _string(choice.get("text")) or _string(fields.get("refusal"))
    # Proxies repeat the same thought under both names.
    thought = (
        _string(fields.get("reasoning_content")) or _string(fields.get("reasoning")) or thought
    )
    whole = isinstance(message, dict)
    reason = _reason(choice.get("finish_reason")) or ("stop" if whole else "")
    usage = _usage(chunk.get("usage"))
    return Record(text, thought, reason, usage, name(chunk.get("system_fingerprint")), whole)


def _error_in(chunk: dict[str, Any]) -> Any:
    error = chunk.get("error")
    if not error and chunk.get("object") == "error":
        error = chunk  # vLLM of old
    if not error and "choices" not in chunk and isinstance(chunk.get("detail"), str | list):
        error = chunk["detail"]  # FastAPI
    return error


def _first_choice(choices: Any) -> dict[str, Any]:
    """The first choice: only one is asked for, and others belong to other answers."""
    found = [one for one in choices if isinstance(one, dict)] if isinstance(choices, list) else []
    return next((one for one in found if one.get("index") in (0, None)), {})


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _parts(content: Any) -> tuple[str, str]:
    """The text and the thoughts of a message's `content`, which may come in parts."""
    if not isinstance(content, list):
        return _string(content), ""
    text = thought = ""
    for part in content:
        if isinstance(part, str):
            text += part
        elif isinstance(part, dict):
            text += _string(part.get("text"))
            inner = part.get("thinking")
            more, nested = _parts(inner)
            thought += more + nested
    return text, thought


def _reason(value: Any) -> str:
    """A reason of any type ends an answer; null, false and "" say that it goes on."""
    if not value:
        return ""
    return name(value) if isinstance(value, str) else json.dumps(value)[:_MOST_NAME]


def _usage(value: Any) -> Usage | None:
    """The counts in `value`; None where there are none: Ollama's are zeros until the end."""
    counted = mapping(value)
    prompt, output = count(counted.get("prompt_tokens")), count(counted.get("completion_tokens"))
    if prompt <= 0 and output <= 0:
        return None
    cached = mapping(counted.get("prompt_tokens_details")).get("cached_tokens")
    thoughts = mapping(counted.get("completion_tokens_details")).get("reasoning_tokens")
    return Usage(prompt, output, count(cached), count(thoughts))


# ---------------------------------------------------------------- events


class StreamReader:
    """Turns the bytes of one response into records."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._skip_newline = False
        self._data: list[str] = []
        self._event = ""
        self._foreign: list[str] = []
        """Lines that belong to no event: of a page, or of an answer that is no stream."""
        self._text, self._thought = _Characters(), _Characters()
        self._seen = False
        """Whether any event was read."""
        self.over = False
        """Whether the stream has said that it is over."""

    def feed(self, data: bytes) -> Iterator[Record]:
        """The records that `data` completes. Raises ServerError."""
        if self._skip_newline and data[:1] == b"\n":
            data = data[1:]
        if data:
            self._skip_newline = data[-1:] == b"\r"
        *ended, rest = _LINE_ENDS.split(data)
        for line in ended:
            self._line += line
            read, self._line = bytes(self._line), bytearray()
            yield from self._read(read.decode("utf-8", "replace"))
        self._line += rest

    def end(self) -> Iterator[Record]:
        """The records that the end of the stream completes. Raises ServerError."""
        last, self._line = bytes(self._line), bytearray()
        with contextlib.suppress(_NoJson):  # it was cut in the middle of an event
            yield from self._read(last.decode("utf-8", "replace"))
            yield from self._dispatch()
        if not self._seen and (said := "\n".join(self._foreign).strip()):
            yield from self._not_streamed(said)

    # ------------------------------------------------------------ lines

    def _read(self, line: str) -> Iterator[Record]:
        if not line:
            yield from self._dispatch()
            return
        field, colon, value = line.removeprefix("\ufeff").partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._event = value
        elif field == "error" and colon:  # llama.cpp's, which is no field of the format
            raise ServerError(_json_or_text(value))
        elif field not in ("", "id", "retry") and not self._seen:
            self._foreign.append(line)

    def _dispatch(self) -> Iterator[Record]:
        """The event that a blank line ends. One without data is none: a comment, a keep-alive."""
        data, event = "\n".join(self._data), self._event
        self._data, self._event = [], ""
        if not data.strip() or self.over:
            return
        self._seen = True
        if data.startswith("[DONE]"):
            self.over = True
            return
        if event == "error":
            raise ServerError(_json_or_text(data))
        try:
            chunk = parsed(data)
        except ValueError as error:
            raise _NoJson(f"it sent what is no JSON: {data[:_MOST_NAME]}") from error
        if (record := record_of(chunk)) is not None:
            yield self._joined(record)

    def _joined(self, record: Record) -> Record:
        text, thought = self._text.joined(record.text), self._thought.joined(record.thought)
        return dataclasses.replace(record, text=text, thought=thought)

    def _not_streamed(self, said: str) -> Iterator[Record]:
        """The one record of a response that is a whole answer; else what it says is an error."""
        try:
            value = parsed(said)
        except ValueError:
            text = " ".join(_TAGS.sub(" ", said).split())
            raise ServerError(f"it sent no stream, but: {text or said}") from None
        record = record_of(value)
        if record is None or not (record.text or record.reason):
            raise ServerError(_json_or_text(said))
        yield self._joined(record)


class _NoJson(ServerError):
    """An event that cannot be parsed."""


class _Characters:
    """Joins surrogate pairs whose halves come in two chunks."""

    def __init__(self) -> None:
        self._half = ""

    def joined(self, text: str) -> str:
        """`text` after what was held back, in whole characters."""
        if not text:
            return ""
        text = self._half + text
        self._half = text[-1] if "\ud800" <= text[-1] <= "\udbff" else ""
        return whole_characters(text[:-1] if self._half else text)


def _json_or_text(text: str) -> Any:
    """The error in `text`: the object, or what stands in its field `error`."""
    try:
        value = parsed(text)
    except ValueError:
        return text
    if isinstance(value, dict):
        return value.get("error") or value
    return text
