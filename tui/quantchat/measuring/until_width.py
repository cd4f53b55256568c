"""When to stop measuring because the interval is narrow enough, and not only by chance.

`--until-width 5%` measures until the 95 % interval of the ratio of decode throughput reaches from
the ratio ÷ 1.05 to the ratio × 1.05. Widths vary by chance, and to stop at the first narrow
interval would favour intervals that are narrow by chance. So the interval has to be narrow enough
after two rounds in a row, the fourth and fifth at the earliest. `benchmarks/verdicts.py` simulates
how often the interval at the end contains the true ratio.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from quantchat.statistics.intervals import Pair, ratio_of

FIRST_CHECK = 4
"""Rounds after which the interval is checked for the first time. Two checks in a row are needed, so
at least five rounds are measured."""


def half_width(pairs: Sequence[Pair]) -> float | None:
    """Return w if the 95 % interval of the ratio reaches from ratio ÷ (1 + w) to ratio × (1 + w).

    `pairs` has the decode throughput of both sides for each measured turn. None if they give no
    interval, for example because they are too few.
    """
    ratio = ratio_of(pairs)
    if ratio is None or ratio.low is None or ratio.high is None or ratio.low <= 0:
        return None
    return math.sqrt(ratio.high / ratio.low) - 1


def narrow_enough(half: float | None, before: float | None, width: float) -> bool:
    """Return whether to stop: both half-widths are at most `width`.

    `half` is the half-width now, `before` that after the previous round; None is not narrow enough.
    """
    return half is not None and before is not None and max(half, before) <= width
