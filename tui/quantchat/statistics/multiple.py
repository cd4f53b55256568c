"""Correct p-values for several comparisons.

With five comparisons at the 5 % level, chance alone shows a difference in up to a quarter of cases
in which there is none. Holm's (1979) procedure keeps that share at 5 %, whatever the dependence
between the comparisons, and finds at least as much as Bonferroni's.
"""

from __future__ import annotations

from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values adjusted by Holm's procedure, in the same order.

    A comparison is significant at the level of the whole family if its adjusted value is below it.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, p_values[index] * (len(p_values) - rank)))
        adjusted[index] = highest
    return adjusted
