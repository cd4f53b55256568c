"""Secrets of the environment (tokens, keys, passwords) are taken out of all that is written.

Exceptions and libraries quote them: a request with its header, an index's address with its login.
Used on both sides; the standard library is all it needs.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from typing import Any

_NAMES = re.compile(r"(TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|KEY|PAT)$", re.IGNORECASE)
"""Ends of the names of variables that hold one: HF_TOKEN, OPENAI_API_KEY, GITHUB_PAT, …"""
_LOGIN = re.compile(r"://([^/\s@]*:)?([^/\s@:]+)@")
"""In an address: `https://name:password@host`, or a token in place of both."""
_KNOWN = re.compile(r"\bhf_[A-Za-z0-9]{20,}\b")
"""Tokens of the Hugging Face hub, wherever they are from (`hf auth login` keeps one in a file)."""
_SHORTEST = 8
"""A shorter value is no secret, and would be found in many a harmless word."""


def names_secret(name: str) -> bool:
    """Whether `name` is that of a secret, as its end tells."""
    return bool(_NAMES.search(name))


_named: set[str] = set()


def also_secret(name: str) -> None:
    """Redact the value of the environment variable `name` too, whatever it is called.

    Streams that are guarded already have to be guarded again.
    """
    _named.add(name)


def secrets(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Each secret's value, and the name of the variable to put in its place."""
    found = {}
    for name, value in environment.items():
        if (names_secret(name) or name in _named) and len(value.strip()) >= _SHORTEST:
            found[value] = found[value.strip()] = name
        for login in _LOGIN.finditer(value):
            if len(login[2]) >= _SHORTEST:
                found[login[2]] = name
    return found


def redacted(text: str, known: Mapping[str, str] | None = None) -> str:
    """`text` with `[HF_TOKEN]` and the like for secrets, by default those of this process."""
    known = secrets() if known is None else known
    for value in sorted(known, key=len, reverse=True):  # one may be a part of another
        name = f"[{known[value]}]"
        text = text.replace(value, name).replace(json.dumps(value)[1:-1], name)
    return _KNOWN.sub("[token]", text)


def guard_streams() -> None:
    """From here on, redact what this process' Python code prints (a worker's log)."""
    known = secrets()
    sys.stdout, sys.stderr = (_Guarded(stream, known) for stream in (sys.stdout, sys.stderr))


class _Guarded:
    def __init__(self, stream: Any, known: Mapping[str, str]) -> None:
        self._stream = stream
        self._known = known

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._stream.write(redacted(text, self._known))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)
