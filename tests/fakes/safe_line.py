"""Checks that a line is safe for a terminal."""

from __future__ import annotations

import unicodedata


def is_clean(line: str) -> bool:
    """Return whether `line` is one line without control characters, and can be encoded."""
    return not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in line)
