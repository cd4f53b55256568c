"""Parse the stream of a server: turn its bytes, whatever they are, into records of checked types.

The format: server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events) with
OpenAI's chunks as their data. Servers and proxies deviate from both: a field may be missing, null
or of another type. `StreamReader` raises only `ServerError`, which has the server's error message.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

COUNT_LIMIT = 2**63
"""A token count of this size or more cannot be real, and does not fit into a snapshot."""
_NAME_CHARACTERS = 200
"""Most characters that are used of a name, a version or a reason that a server sends."""
_LINE_ENDS = re.compile(rb"\r\n|\r|\n")
_TAGS = re.compile(r"<(script|style)\b.*?</\1\s*>|<[^>]*>", re.DOTALL | re.IGNORECASE)
"""HTML tags, scripts and styles, which are removed from a web page in place of an answer."""
_SURROGATES = re.compile("[\ud800-\udfff]")
"""Surrogates (halves of a character in UTF-16). Escapes in JSON can denote them, but UTF-8 cannot
encode them."""


@dataclass(frozen=True)
class Usage:
    """A server's token counts; -1 for a count that it does not report."""

    prompt: int = -1
    output: int = -1
    """Output tokens, including thoughts."""
    cached: int = -1
    """Prompt tokens taken from the server's KV cache."""
    thoughts: int = -1
    """Output tokens that were thoughts."""

    def updated(self, newer: Usage) -> Usage:
        """Return the counts of `newer`, and the counts of `self` for those that `newer` lacks."""
        pairs = zip(vars(self).items(), vars(newer).values(), strict=True)
        return Usage(**{name: old if new < 0 else new for (name, old), new in pairs})


@dataclass(frozen=True)
class DraftCounts:
    """A server's counts of speculative decoding for one answer."""

    drafted: int
    """Tokens that the draft proposed."""
    accepted: int
    """Drafted tokens that the model accepted."""
    passes: int
    """Forward passes of the model. Each yields the drafted tokens that it accepts, and one more."""


@dataclass(frozen=True)
class Record:
    """What one chunk says about an answer, with checked types."""

    text: str = ""
    thought: str = ""
    """Text of the thoughts, which are not part of the answer."""
    reason: str = ""
    """The server's reason why the answer ends here; empty if the answer goes on."""
    stopped_by: str | None = None
    """The stop string that ended the answer, "" if no stop string did; None if the server does not
    report it."""
    usage: Usage | None = None
    drafts: DraftCounts | None = None
    build: str = ""
    """The server's `system_fingerprint`."""
    whole: bool = False
    """Whether the chunk is a whole answer: the server does not stream."""


class ServerError(Exception):
    """An error that a server sends instead of an answer, or instead of the rest of an answer.

    `body` describes the error, as a JSON value or text.
    """

    def __init__(self, body: Any) -> None:
        super().__init__(body if isinstance(body, str) else json.dumps(body))
        self.body = body


# ---------------------------------------------------------------- JSON of any type


def count(value: Any) -> int:
    """Return `value` if it is a count of tokens, else -1."""
    return value if type(value) is int and 0 <= value < COUNT_LIMIT else -1


def name(value: Any) -> str:
    """Return `value`, shortened, if it is a string; otherwise an empty text."""
    return whole_characters(value)[:_NAME_CHARACTERS] if isinstance(value, str) else ""


def mapping(value: object) -> Mapping[str, object]:
    """Return `value` if it is a JSON object, else an empty object."""
    return value if isinstance(value, dict) else {}


def parsed(text: str | bytes) -> Any:
    """Return the JSON value in `text`. Raises ValueError."""
    try:
        return json.loads(text, parse_int=_integer)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) < 20 else float(digits)  # Python refuses to parse 5000 digits


def whole_characters(text: str) -> str:
    """Return `text` with surrogate pairs joined, and U+FFFD for single halves."""
    if not _SURROGATES.search(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


# ---------------------------------------------------------------- chunks


def record_of(chunk: Any) -> Record | None:
    """Return the record of the JSON value `chunk`; None if it is not an object.

    Raises ServerError if `chunk` reports an error.
    """
    if not isinstance(chunk, dict):
        return None
    if error := _error_in(chunk):
        raise ServerError(error)
    choice = _first_choice(chunk.get("choices"))
    message = choice.get("message")
    content = choice.get("delta") or message
    text, thought = _parts(content.get("content") if isinstance(content, dict) else content)
    fields = mapping(content)
    text = text or _string(choice.get("text")) or _string(fields.get("refusal"))
    # Proxies send the same thought under both names: use only one.
    thought = (
        _string(fields.get("reasoning_content")) or _string(fields.get("reasoning")) or thought
    )
    whole = isinstance(message, dict)
    reason = _reason(choice.get("finish_reason")) or ("stop" if whole else "")
    usage = _usage(chunk.get("usage"))
    build = name(chunk.get("system_fingerprint"))
    stopped_by, drafts = _stopped_by(choice), _drafts(chunk)
    return Record(text, thought, reason, stopped_by, usage, drafts, build, whole)


def _error_in(chunk: Mapping[str, object]) -> object:
    error = chunk.get("error")
    if not error and chunk.get("object") == "error":
        error = chunk  # old releases of vLLM
    if not error and "choices" not in chunk and isinstance(chunk.get("detail"), str | list):
        error = chunk["detail"]  # FastAPI
    return error


def _first_choice(choices: object) -> Mapping[str, object]:
    """Return the choice with index 0. Only one answer is requested; other choices are ignored."""
    found = [one for one in choices if isinstance(one, dict)] if isinstance(choices, list) else []
    return next((one for one in found if one.get("index") in (0, None)), {})


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _parts(content: Any) -> tuple[str, str]:
    """Return text and thoughts of a message's `content`, a string or a list of parts."""
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
    """Return the finish reason as text; empty if the answer goes on (null, false or "")."""
    if not value:
        return ""
    return name(value) if isinstance(value, str) else json.dumps(value)[:_NAME_CHARACTERS]


def _stopped_by(choice: Mapping[str, object]) -> str | None:
    """Return the stop string that vLLM or SGLang reports; "" for an end token, None if unknown."""
    reasons = [choice[key] for key in ("stop_reason", "matched_stop") if key in choice]
    return _string(reasons[0]) if reasons else None


def _usage(value: Any) -> Usage | None:
    """Return the counts in `value`; None if all are missing or 0, as in Ollama's first chunks."""
    usage = mapping(value)
    prompt, output = count(usage.get("prompt_tokens")), count(usage.get("completion_tokens"))
    if prompt <= 0 and output <= 0:
        return None
    cached = mapping(usage.get("prompt_tokens_details")).get("cached_tokens")
    thoughts = mapping(usage.get("completion_tokens_details")).get("reasoning_tokens")
    return Usage(prompt, output, count(cached), count(thoughts))


_DRAFTS = (
    # vLLM 0.29 and later, with the option `--per-request-spec-decode-metrics summary`.
    ("metrics", "speculative_decoding",
     ("num_draft_tokens", "num_accepted_draft_tokens", "num_spec_steps")),
    # SGLang since its pull request 33518, if the request asks for them.
    ("sglext", "spec_tokens_details",
     ("spec_num_proposed_drafts", "spec_num_correct_drafts", "spec_verify_ct")),
)  # fmt: skip
"""For each server: outer key, inner key, and the names of the counts in the order of the fields of
`DraftCounts`."""


def _drafts(chunk: Mapping[str, object]) -> DraftCounts | None:
    """Return the counts of speculative decoding in `chunk`, or None. The last chunk has them."""
    for key, inner, names in _DRAFTS:
        if metrics := mapping(mapping(chunk.get(key)).get(inner)):
            found = DraftCounts(*(count(metrics.get(name)) for name in names))
            break
    else:  # llama.cpp does not count passes; each pass yields one token that was not drafted
        timings = mapping(chunk.get("timings"))
        drafted, accepted = count(timings.get("draft_n")), count(timings.get("draft_n_accepted"))
        found = DraftCounts(drafted, accepted, count(timings.get("predicted_n")) - accepted)
    return found if 0 <= found.accepted <= found.drafted and found.passes > 0 else None


# ---------------------------------------------------------------- events


class StreamReader:
    """Turns the bytes of one response into records."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._skip_newline = False
        self._data: list[str] = []
        self._event = ""
        self._foreign: list[str] = []
        """Lines that belong to no event, for example of a web page or a whole answer."""
        self._text, self._thought = _Characters(), _Characters()
        self._event_seen = False
        """Whether any event was read."""
        self.over = False
        """Whether the stream has ended with `[DONE]`."""

    def feed(self, data: bytes) -> Iterator[Record]:
        """Yield the records that `data` completes. Raises ServerError."""
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
        """Yield the records that the end of the stream completes. Raises ServerError."""
        last, self._line = bytes(self._line), bytearray()
        with contextlib.suppress(_NoJson):  # the stream broke off in the middle of an event
            yield from self._read(last.decode("utf-8", "replace"))
            yield from self._dispatch()
        if not self._event_seen and (body := "\n".join(self._foreign).strip()):
            yield from self._not_streamed(body)

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
        elif field == "error" and colon:  # llama.cpp sends it; it is not part of the format
            raise ServerError(_json_or_text(value))
        elif field not in ("", "id", "retry") and not self._event_seen:
            self._foreign.append(line)

    def _dispatch(self) -> Iterator[Record]:
        """Yield the record of the event that has just ended with a blank line, if it has data."""
        data, event = "\n".join(self._data), self._event
        self._data, self._event = [], ""
        if not data.strip() or self.over:
            return
        self._event_seen = True
        if data.startswith("[DONE]"):
            self.over = True
            return
        if event == "error":
            raise ServerError(_json_or_text(data))
        try:
            chunk = parsed(data)
        except ValueError as error:
            raise _NoJson(
                f"the server sent an event that is not JSON: {data[:_NAME_CHARACTERS]}"
            ) from error
        if (record := record_of(chunk)) is not None:
            yield self._whole_characters(record)

    def _whole_characters(self, record: Record) -> Record:
        text, thought = (
            self._text.join_halves(record.text),
            self._thought.join_halves(record.thought),
        )
        return dataclasses.replace(record, text=text, thought=thought)

    def _not_streamed(self, body: str) -> Iterator[Record]:
        """Yield the record of the whole answer `body`. Raises ServerError for other text."""
        try:
            value = parsed(body)
        except ValueError:
            text = " ".join(_TAGS.sub(" ", body).split())
            raise ServerError(f"the server sent no stream, but: {text or body}") from None
        record = record_of(value)
        if record is None or not (record.text or record.reason):
            raise ServerError(_json_or_text(body))
        yield self._whole_characters(record)


class _NoJson(ServerError):
    """An event that cannot be parsed."""


class _Characters:
    """Joins surrogate pairs whose halves arrive in two chunks."""

    def __init__(self) -> None:
        self._half = ""

    def join_halves(self, text: str) -> str:
        """Return `text` with whole characters only.

        A half at the end of the last text is put before `text`; a half at the end of `text` is
        stored for the next call.
        """
        if not text:
            return ""
        text = self._half + text
        self._half = text[-1] if "\ud800" <= text[-1] <= "\udbff" else ""
        return whole_characters(text[:-1] if self._half else text)


def _json_or_text(text: str) -> Any:
    """Return the error that `text` describes.

    It is the field `error` if `text` is a JSON object with this field, else the object or the text.
    """
    try:
        value = parsed(text)
    except ValueError:
        return text
    if isinstance(value, dict):
        return value.get("error") or value
    return text
