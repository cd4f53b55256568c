"""Choose how many weights share a scale, if the profile does not name a group size."""

from __future__ import annotations

from collections.abc import Iterable

GROUP_SIZES = (128, 64, 32)
"""The usual group sizes. A larger size gives a smaller checkpoint, and is preferred."""


def fitting_group(widths: Iterable[int]) -> int:
    """Return the largest of `GROUP_SIZES` that divides each width; -1 (a whole row) if none does.

    A width is the number of inputs of a layer.
    """
    different = set(widths)
    return next((size for size in GROUP_SIZES if all(w % size == 0 for w in different)), -1)
