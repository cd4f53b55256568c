"""The quantization methods as a table."""

from __future__ import annotations

from collections.abc import Sequence

from quantchat.document.document import Block, paragraphs, table
from quantchat.features.methods.offer import OfferedMethod


def blocks(methods: Sequence[OfferedMethod]) -> list[Block]:
    """Return a table of the methods, and a line that says how to use one."""
    rows = [
        (
            one.name,
            one.engine,
            one.needs,
            "yes" if one.calibrated else "no",
            "yes" if one.made_here else "no",
            one.missing or "yes",
        )
        for one in methods
    ]
    heads = ("method", "engine", "needs", "calibrated", "`quantize` makes it", "installed here")
    return [
        table("", heads, rows),
        *paragraphs(["`quantchat methods NAME` prints the lines of a profile."]),
    ]
