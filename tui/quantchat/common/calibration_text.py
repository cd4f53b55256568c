"""Reads calibration text from a file: plain text, or JSONL with texts or chats.

A record is one text or chat: `{"text": ...}` or `{"messages": [{"role", "content"}, ...]}`. The
files that calibration jobs read and write have one such record per line.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from quantchat.common.input_files import (
    Unreadable,
    decoded,
    is_json_lines,
    json_lines,
    read_regular,
)

Record = dict[str, Any]

ROLES = ("system", "user", "assistant", "tool")

MOST_BYTES = 64 * 2**20
"""Largest file that is read, in bytes; a calibration uses only a few hundred kilobytes."""

SHAPE = 'a line is {"messages": [{"role": …, "content": …}, …]}, {"text": …}, or a JSON string'


def read(file: Path) -> tuple[list[Record], str]:
    """Return the records of `file` and its SHA-256. Raises Unreadable and OSError."""
    data = read_regular(file, MOST_BYTES)
    text = decoded(data)
    records = parse_jsonl(text) if is_json_lines(file) else parse_plain(text)
    return records, hashlib.sha256(data).hexdigest()


def parse_plain(text: str) -> list[Record]:
    """Return plain text as one long record, to be cut by tokens. Raises Unreadable."""
    if not text.strip():
        raise Unreadable("holds no text")
    return [{"text": text}]


def parse_jsonl(text: str) -> list[Record]:
    """Return the records of JSON Lines; blank lines are skipped. Raises Unreadable."""
    records = [record(value, number) for number, value in json_lines(text)]
    if not records:
        raise Unreadable("holds no text")
    return records


def record(value: Any, line: int = 0) -> Record:
    """Return `value`, parsed JSON or a cell of a data set, as a record. Raises Unreadable."""
    if isinstance(value, dict) and "messages" in value:
        value = value["messages"]
    elif isinstance(value, dict):
        value = value.get("text")
    if isinstance(value, str) and value.strip():
        return {"text": value}
    if isinstance(value, list) and value:
        return {"messages": [_message(message, line) for message in value]}
    raise Unreadable("holds neither a text nor messages", line)


def _message(message: Any, line: int) -> dict[str, str]:
    role = message.get("role") if isinstance(message, dict) else None
    if role not in ROLES:
        raise Unreadable(f"a message's role is not one of {', '.join(ROLES)}", line)
    content = message.get("content")
    if not isinstance(content, str):
        raise Unreadable("a message's content is not text", line)
    return {"role": role, "content": content}
