"""Prompts of a measurement: from the command line, a file or the profile, or the built-in ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from quantchat.common.input_files import (
    Unreadable,
    decoded,
    has_lone_surrogate,
    is_json_lines,
    json_lines,
    read_any,
)
from quantchat.errors import UserError
from quantchat.profile.model import Run

DEFAULT = (
    "Explain step by step how a bicycle stays upright.",
    "Write a Python function that returns the n-th Fibonacci number, and explain its cost.",
    "Summarise the causes of the French Revolution in one paragraph.",
    "Write a short letter to a neighbour, asking them to water the plants for two weeks.",
    "What are the differences between a list and a tuple in Python? Give examples.",
)
"""Five prompts of different kinds."""

MAX_BYTES = 16 * 2**20
"""Largest file of prompts that is read, in bytes."""

_HINT = (
    'use UTF-8 text with one prompt per line, or JSON Lines of strings or objects with a "prompt"'
)


def of_profile(run: Run) -> tuple[str, ...]:
    """Return the prompts of a profile's measurement; by default the built-in ones."""
    return tuple(run.prompts) or DEFAULT


def from_options(texts: Iterable[str], file: Path | None, run: Run) -> tuple[str, ...]:
    """Return the prompts `texts` and those in `file`; if there are none, the profile's.

    Raises UserError as `read` does.
    """
    texts = (*texts, *(read(file) if file else ())) or of_profile(run)
    for text in texts:
        if has_lone_surrogate(text):  # an argument that is not UTF-8
            raise UserError("is not UTF-8", where="--prompt", hint="use a UTF-8 locale")
    return texts


def lengthened(texts: Sequence[str], tokens: int) -> tuple[str, ...]:
    """Return `texts`, each repeated or cut to about `tokens` tokens of English (4 characters each).

    Used for servers: without token ids, quantchat cannot cut a prompt at an exact number of tokens.
    The server later reports how many tokens the prompt had.
    """
    length = 4 * tokens
    return tuple((f"{text} " * -(-length // (len(text) + 1)))[:length].strip() for text in texts)


def read(path: Path) -> tuple[str, ...]:
    """Return the prompts of a file: one per line, or JSONL with a string or a `prompt` per line.

    Blank lines are skipped. Raises UserError with the number of the wrong line.
    """
    try:
        text = decoded(read_any(path, MAX_BYTES))
        if is_json_lines(path):
            prompts = tuple(_prompt(value, number) for number, value in json_lines(text))
        else:
            # Split at line feeds only: a prompt may contain U+2028 or a form feed.
            prompts = tuple(line.strip() for line in text.split("\n") if line.strip())
    except OSError as error:
        raise UserError(
            f"cannot read the prompts: {error.strerror or error}", where=str(path)
        ) from error
    except Unreadable as error:
        where = f"{path}:{error.line}" if error.line else str(path)
        raise UserError(str(error), where=where, hint=_HINT) from error
    if not prompts:
        raise UserError(
            "there are no prompts in the file", where=str(path), hint="write one prompt per line"
        )
    return prompts


def _prompt(value: Any, number: int) -> str:
    if isinstance(value, dict):
        value = value.get("prompt")
    if not isinstance(value, str) or not value.strip():
        raise Unreadable("no prompt", number)
    return value
