"""Prompts for a measurement: given, read from a file, or our own."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from quantchat.errors import UserError
from quantchat.profile.model import Run

DEFAULT = (
    "Explain step by step how a bicycle stays upright.",
    "Write a Python function that returns the n-th Fibonacci number, and explain its cost.",
    "Summarise the causes of the French Revolution in one paragraph.",
    "Write a short letter to a neighbour, asking them to water the plants for two weeks.",
    "What are the differences between a list and a tuple in Python? Give examples.",
)
"""Five of different kinds, as many as the article's protocol has."""

MOST_BYTES = 16 * 2**20


def of(run: Run) -> tuple[str, ...]:
    """The prompts that a profile names to be measured, by default our own."""
    return tuple(run.prompts) or DEFAULT


def asked(given: Iterable[str], file: Path | None, run: Run) -> tuple[str, ...]:
    """The prompts of a command: those `given` and in its `file`, or else those `of` the profile.

    Raises UserError as `read` does.
    """
    return (*given, *(read(file) if file else ())) or of(run)


def read(path: Path) -> tuple[str, ...]:
    """Return the prompts of a file: one a line, or JSONL with a string or a `prompt` a line.

    Blank lines are passed over. Raises UserError, with the line.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UserError(
            f"cannot read the prompts: {error.strerror or error}", where=str(path)
        ) from error
    if len(data) > MOST_BYTES:
        raise UserError(f"more than {MOST_BYTES // 2**20} MiB of prompts", where=str(path))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError("not UTF-8 text", where=str(path)) from error
    # Only line feeds end a line: a prompt may hold U+2028 or a form feed.
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1)]
    jsonl = path.suffix.lower() in (".jsonl", ".json")
    prompts = tuple(
        _from_json(line, f"{path}:{number}") if jsonl else line for number, line in lines if line
    )
    if not prompts:
        raise UserError("no prompts in it", where=str(path), mend="one prompt a line")
    return prompts


def _from_json(line: str, where: str) -> str:
    mend = 'a line is a JSON string, or an object with a "prompt"'
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError("not JSON", where=where, mend=mend) from error
    if isinstance(value, dict):
        value = value.get("prompt")
    if not isinstance(value, str) or not value.strip():
        raise UserError("no prompt", where=where, mend=mend)
    return value
