"""The end of a log: libraries print half a megabyte while they quantize."""

from __future__ import annotations

from pathlib import Path


def end_of(log: Path, most: int) -> str:
    """The last `most` bytes of `log`, as text. Raises OSError."""
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - most))
        return file.read().decode("utf-8", "replace")
