"""Correct p-values for several comparisons.

If nothing differs, five comparisons at the 5 % level still show at least one difference by chance,
in up to a quarter of cases. Holm's (1979) procedure keeps this share of cases at 5 % or less,
however the comparisons depend on each other. It finds every difference that Bonferroni's procedure
finds.
"""

from __future__ import annotations

from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values adjusted by Holm's procedure, in the same order.

    A comparison is significant at a level α for all of them together if its adjusted p-value is
    below α.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, p_values[index] * (len(p_values) - rank)))
        adjusted[index] = highest
    return adjusted
