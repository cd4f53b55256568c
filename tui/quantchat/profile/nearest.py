"""Find the known names that are most similar to a mistyped name."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(word: str, known: Iterable[str], limit: int = 1) -> list[str]:
    """Return at most `limit` names of `known` similar to `word`, the most similar first."""
    import difflib  # imported late, because it is rarely needed

    by_lower = {name.lower(): name for name in known}
    # Comparing takes time quadratic in the length, so cut the word; no known name is this long.
    close = difflib.get_close_matches(word.lower()[:80], by_lower, n=limit, cutoff=0.6)
    return [by_lower[name] for name in close]


def did_you_mean(word: str, known: Iterable[str], limit: int = 1) -> str:
    """Return `did you mean …?` with the names in double quotes; empty if none is similar."""
    names = [f'"{name}"' for name in nearest(word, known, limit)]
    return f"did you mean {' or '.join(names)}?" if names else ""
