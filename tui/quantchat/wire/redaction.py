"""Remove secrets of the environment (tokens, keys, passwords) from everything that is written.

Texts of exceptions and libraries can contain secrets, such as a request's header, or a package
index's address with its login.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

_NAMES = re.compile(r"(TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|KEY|PAT)$", re.IGNORECASE)
"""Ends of the names of variables that hold secrets: HF_TOKEN, OPENAI_API_KEY, GITHUB_PAT, …"""
_LOGIN = re.compile(r"://([^/\s@]*:)?([^/\s@:]+)@")
"""A login in an address: `https://name:password@host`, or `https://token@host`."""
_KNOWN = re.compile(r"\bhf_[A-Za-z0-9]{20,}\b")
"""Tokens of the Hugging Face hub, from any source (`hf auth login` stores one in a file)."""
_SHORTEST = 8
"""Shortest secret that is removed, because shorter values are parts of many harmless words."""
_WORDS = re.compile(r"[A-Z]?[a-z]+(?:[-_. ][A-Z]?[a-z]+)*")
_LONGEST_WORDS = 15
"""Values that consist of words (`_WORDS`) and have at most this many characters are not redacted:
many texts contain the word `measurement`, even if it is also a password."""
_PLACEHOLDERS = frozenset(
    (
        "lm-studio", "llama.cpp", "token-abc123", "sk-no-key-required", "sk-not-needed",
        "sk-placeholder", "sk-dummy", "sk-xxxx", "no-key-required", "your-api-key-here",
        "your_api_key_here", "insert-your-key-here", "not-needed-locally",
    )
)  # fmt: skip
"""Values that the manuals of servers recommend if a client requires a key and the server does not.
Other such values are short or consist of words: `none`, `EMPTY`, `ollama`, `not-needed`,
`placeholder`."""


def names_secret(name: str) -> bool:
    """Return whether a variable of this name holds a secret."""
    return bool(_NAMES.search(name))


_named: set[str] = set()


def declare_secret(name: str) -> None:
    """Also redact the value of the environment variable `name`, whatever its name.

    If `guard_streams` was called before, call it again.
    """
    _named.add(name)


def secrets(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return all secrets. Key: a secret; value: the name of the variable that holds it."""
    found = {}
    for name, value in environment.items():
        if (names_secret(name) or name in _named) and _is_secret(value.strip()):
            found[value] = found[value.strip()] = name
        for login in _LOGIN.finditer(value):
            if _is_secret(login[2]):
                found[login[2]] = name
    return found


def _is_secret(value: str) -> bool:
    if len(value) < _SHORTEST or value.lower() in _PLACEHOLDERS:
        return False
    return len(value) > _LONGEST_WORDS or not _WORDS.fullmatch(value)


def redacted(text: str, known: Mapping[str, str] | None = None) -> str:
    """Return `text` with each secret replaced by the name of its variable (`[HF_TOKEN]`).

    Other tokens of the Hugging Face hub are replaced by `[token]`. `known` has the secrets as
    `secrets` returns them, by default those of this process.
    """
    return redactor(known)(text)


def redactor(known: Mapping[str, str] | None = None) -> Callable[[str], str]:
    """Return a function that does the same as `redacted`, faster for many texts."""
    names: dict[str, str] = {}
    for value, name in (secrets() if known is None else known).items():
        names |= dict.fromkeys((value, json.dumps(value)[1:-1]), f"[{name}]")
    longest_first = sorted(names, key=len, reverse=True)  # a secret may be a part of another
    secret = re.compile("|".join(map(re.escape, longest_first))) if names else None

    def redact(text: str) -> str:
        if secret is not None:
            text = secret.sub(lambda found: names[found[0]], text)
        return _KNOWN.sub("[token]", text)

    return redact


def guard_streams() -> None:
    """Redact everything that this process' Python code prints from now on (a worker's log)."""
    redact = redactor()
    sys.stdout, sys.stderr = (_Guarded(stream, redact) for stream in (sys.stdout, sys.stderr))


class _Guarded:
    def __init__(self, stream: Any, redact: Callable[[str], str]) -> None:
        self._stream = stream
        self._redact = redact

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):  # a full disk: the worker goes on without its log
            self._stream.write(self._redact(text))
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)
