"""The protocol between the main process and a worker: one JSON message per line, in UTF-8.

Commands go to the worker through one pipe, and events come back through another. stdout and stderr
are not used, because libraries print to them. The `type` on a line is the name of the message's
class.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Union

from quantchat.wire.codec import ProtocolError, from_json
from quantchat.wire.messages import (
    Alive,
    Drafted,
    Failed,
    Finished,
    Generate,
    Hello,
    LoadModel,
    Memory,
    Note,
    Prefilled,
    Progress,
    Ready,
    ScoreTokens,
    Shutdown,
    Started,
    Stop,
    StopScoring,
    Tokens,
    TokenScores,
)

if TYPE_CHECKING:
    from quantchat.wire.jobs import AnyJob, JobResult

# The types of jobs are given as strings and imported only when needed: a chat needs none of them.
Command = Union[LoadModel, Generate, ScoreTokens, Stop, StopScoring, Shutdown, "AnyJob"]
Event = Union[
    Hello,
    Alive,
    Progress,
    Ready,
    Note,
    Started,
    Prefilled,
    Tokens,
    Drafted,
    Memory,
    Finished,
    TokenScores,
    Failed,
    "JobResult",
]


def _by_name(union: Any) -> dict[str, type[Any]]:
    return {one.__name__: one for one in typing.get_args(union) if isinstance(one, type)}


_COMMANDS = _by_name(Command)
_EVENTS = _by_name(Event)


def _command_type(name: str) -> type[Any] | None:
    if name in _COMMANDS:
        return _COMMANDS[name]
    from quantchat.wire import jobs  # imported here, because a chat needs none of these types

    return _by_name(jobs.AnyJob).get(name)


def _event_type(name: str) -> type[Any] | None:
    if name in _EVENTS:
        return _EVENTS[name]
    from quantchat.wire import jobs

    return _by_name(jobs.JobResult).get(name)


# ---------------------------------------------------------------- to and from JSON


def encode(message: Command | Event) -> bytes:
    """Return `message` as one JSON line, with its newline."""
    body = {"type": type(message).__name__, **dataclasses.asdict(message)}
    # All other characters are escaped as ASCII, so that neither U+2028 nor a lone surrogate in a
    # model's text breaks a line.
    return json.dumps(body, separators=(",", ":")).encode("ascii") + b"\n"


def decode_command(line: bytes) -> Command:
    """Return the command on `line`. Raises ProtocolError."""
    return typing.cast("Command", _decode(line, _command_type))


def decode_event(line: bytes) -> Event:
    """Return the event on `line`. Raises ProtocolError."""
    return typing.cast("Event", _decode(line, _event_type))


def _decode(line: bytes, type_named: Callable[[str], type[Any] | None]) -> Any:
    try:
        body = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not JSON: {line[:80]!r}") from error
    if not isinstance(body, dict):
        raise ProtocolError(f"not an object: {line[:80]!r}")
    name = body.pop("type", None)
    found = type_named(name) if isinstance(name, str) else None
    if found is None:
        raise ProtocolError(f"unknown message type: {str(name)[:80]!r}")
    return from_json(found, body)
