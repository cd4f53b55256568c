"""Decide between measured candidates: limits, Pareto frontier, the best candidate and its equals.

A limit is judged like a gate (`snapshot.verdicts`): it is shown to be met, shown to be missed, or
undecided. A candidate that is shown to miss a limit is dropped. A candidate with an undecided limit
is recommended only if no candidate is shown to meet all limits. The best candidate in the preferred
figure is compared with each other candidate, and the p-values of these comparisons are corrected
together (Holm). Candidates that are not shown to differ from the best one count as equally good.
The other figures then decide between them (`_TIE_BREAKERS`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import NormalDist

from quantchat.document.figures import number, size
from quantchat.document.verdicts import more_needed
from quantchat.snapshot.pick import (
    CandidateRecord,
    ComparedRecord,
    LimitRecord,
    LimitsRecord,
    MeasuredRecord,
    PickRecord,
    Preference,
)
from quantchat.snapshot.quality_gates import UncertainValue
from quantchat.snapshot.verdicts import JudgedQuantity
from quantchat.statistics.intervals import (
    CONFIDENCE,
    Interval,
    Pair,
    Row,
    interval_of,
    ratio_of,
)
from quantchat.statistics.multiple import holm

LEVEL = 1 - CONFIDENCE

SAME_MEMORY = 0.01
"""Sizes that differ by less than this share count as equal, because an estimate is not more
exact."""


@dataclass(frozen=True)
class Candidate:
    """What was measured of one variant."""

    label: str
    dropped: str = ""
    """Why the variant was dropped; empty if it was not."""
    memory: int | None = None
    """Bytes at the context length of the limits; None if not known."""
    memory_how: str = ""
    """How `memory` was found, e.g. `estimated`."""
    speeds: Mapping[tuple[int, int], float] = field(default_factory=dict)
    """Decode throughput in tok/s by prompt and round."""
    kld: UncertainValue | None = None
    """Mean KLD from the reference, in nats."""
    tokens: int = 0
    """Length in tokens of the text on which `kld` was measured."""
    drop: UncertainValue | None = None
    """Loss of accuracy against the reference, as a share of the questions."""
    questions: int = 0
    """Number of questions from which `drop` is computed."""
    is_reference: bool = False

    @cached_property
    def throughput(self) -> Interval | None:
        """The mean decode throughput in tok/s."""
        rows = [Row(prompt, round_, (value,)) for (prompt, round_), value in self.speeds.items()]
        return interval_of(lambda means: means[0], rows) if rows else None


def decide(
    candidates: Sequence[Candidate], limits: LimitsRecord, reference: str, stopped: str = ""
) -> PickRecord:
    """Return the decision between `candidates` under `limits`.

    `reference` and `stopped` are recorded as they are (see `PickRecord`).
    """
    frontier = _frontier(candidates)
    records = [_record(one, limits, one.label in frontier) for one in candidates]
    by_label = {one.label: one for one in candidates}
    meeting = [one for one in records if not one.dropped and not one.misses_limit]
    certain = [one for one in meeting if one.meets_limits]
    ranked = _ranked(certain, limits.prefer) or _ranked(meeting, limits.prefer)
    best = ranked[0].label if ranked else ""
    rivals = [one for one in _ranked(meeting, limits.prefer) if one.label != best]
    comparisons = _comparisons(by_label, best, [one.label for one in rivals], limits.prefer)
    tied = {one.other for one in comparisons if not one.difference_shown}
    equals = [one for one in ranked if one.label == best or one.label in tied]
    chosen, because = _choose(equals, limits.prefer)
    others = [one.label for one in [*ranked, *rivals] if one.label != chosen]
    return PickRecord(
        limits=limits,
        reference=reference,
        candidates=records,
        best=best,
        recommended=chosen,
        because=because,
        runner_up=others[0] if others else "",
        comparisons=comparisons,
        stopped=stopped,
    )


# ------------------------------------------------------------ limits


def _record(one: Candidate, limits: LimitsRecord, frontier: bool) -> CandidateRecord:
    speed = speed_of(one)
    return CandidateRecord(
        label=one.label,
        dropped=one.dropped,
        memory=one.memory,
        memory_how=one.memory_how,
        speed=MeasuredRecord(value=speed.value, low=speed.low, high=speed.high) if speed else None,
        answers=len(one.speeds),
        kld=_measured_record(one.kld),
        drop=_measured_record(one.drop),
        limits=[] if one.dropped else judged_limits(one, limits),
        frontier=frontier,
    )


def _measured_record(figure: UncertainValue | None) -> MeasuredRecord | None:
    if figure is None:
        return None
    if not math.isfinite(figure.margin):
        return MeasuredRecord(value=figure.value, low=None, high=None)
    return MeasuredRecord(
        value=figure.value,
        # The interval around `centre` need not contain `value`, which may be a robust estimate or
        # lie near a bound.
        low=min(figure.value, figure.centre - figure.margin),
        high=max(figure.value, figure.centre + figure.margin),
    )


def speed_of(one: Candidate, threshold: float = 0.0) -> JudgedQuantity | None:
    """Return the mean decode throughput, judged against the lowest allowed one (`threshold`).

    None if it was not measured.
    """
    throughput = one.throughput
    if throughput is None:
        return None
    return JudgedQuantity(
        "decode throughput", throughput.value, throughput.low, throughput.high, threshold, ">=",
        why="measured once", units=throughput.clusters, unit=throughput.clustered_by,
    )  # fmt: skip


def judged_limits(one: Candidate, limits: LimitsRecord) -> list[LimitRecord]:
    """Return what is shown about each limit that is set."""
    found = []
    if limits.max_memory is not None:
        needs = None if one.memory is None else float(one.memory)
        judged = JudgedQuantity(
            "memory", needs or 0.0, needs, needs, limits.max_memory, "<=",
            sampled=False, why="not known",
        )  # fmt: skip
        found.append(_limit(f"at most {size(limits.max_memory)}", judged, size(one.memory)))
    if limits.min_tps is not None:
        text = f"at least {number(limits.min_tps)} tok/s"
        speed = speed_of(one, limits.min_tps)
        more = {"more_rounds": speed is not None and speed.needed is not None}
        found.append(_limit(text, speed, "tok/s").model_copy(update=more))
    if limits.max_kld is not None:
        text = f"KLD at most {limits.max_kld:g}"
        found.append(_limit(text, _at_most(one.kld, limits.max_kld, one.tokens, "token"), "nats"))
    if limits.max_drop is not None:
        text = f"at most {100 * limits.max_drop:g} % points of accuracy lost"
        judged_drop = _at_most(one.drop, limits.max_drop, one.questions, "question")
        found.append(_limit(text, judged_drop, "% points", scale=100))
    return found


def _at_most(
    figure: UncertainValue | None, most: float, units: int, unit: str
) -> JudgedQuantity | None:
    measured = _measured_record(figure)
    if measured is None:
        return None
    return JudgedQuantity(
        unit, measured.value, measured.low, measured.high, most, "<=",
        why="its standard error is not known", units=units, unit=unit,
    )  # fmt: skip


def _limit(text: str, judged: JudgedQuantity | None, unit: str, scale: int = 1) -> LimitRecord:
    """Return the record of the limit `text`, with what `judged` shows about it.

    The figures of `judged` are multiplied by `scale` to get figures in `unit`. For a quantity that
    is not sampled, `unit` is the whole text of the figure instead.
    """
    if judged is None:
        return LimitRecord(limit=text, outcome="undecided", reason="not measured")
    if judged.low is None or judged.high is None:
        return LimitRecord(limit=text, outcome="undecided", reason=judged.why)
    if not judged.sampled:
        return LimitRecord(limit=text, outcome=judged.outcome, reason=unit)
    if judged.low == judged.high == 0:
        return LimitRecord(limit=text, outcome=judged.outcome, reason="the reference itself")
    value, low, high = (scale * figure for figure in (judged.value, judged.low, judged.high))
    reason = f"{value:.3g} {unit} ({low:.3g} to {high:.3g})"
    if judged.outcome == "undecided":
        reason += more_needed(judged)
    return LimitRecord(limit=text, outcome=judged.outcome, reason=reason)


# ------------------------------------------------------------ ranks


_UNKNOWN = math.inf
_SORT_KEY: dict[Preference, Callable[[CandidateRecord], float]] = {
    "fastest": lambda one: -one.speed.value if one.speed else _UNKNOWN,
    "smallest": lambda one: one.memory if one.memory is not None else _UNKNOWN,
    "closest": lambda one: one.kld.value if one.kld else _UNKNOWN,
}
"""Preference → the function that returns its figure for sorting, negated if more is better."""

_TIE_BREAKERS: dict[Preference, tuple[Preference, Preference]] = {
    "fastest": ("closest", "smallest"),
    "smallest": ("closest", "fastest"),
    "closest": ("smallest", "fastest"),
}
"""Preference → the figures that decide, in this order, between candidates that are equally good in
the preferred figure."""

_WHY_CHOSEN: dict[Preference, str] = {
    "fastest": "it is faster",
    "smallest": "it takes less memory",
    "closest": "it is closer to the original",
}
"""Figure → why the candidate that is better in it was chosen."""


def _ranked(records: Sequence[CandidateRecord], prefer: Preference) -> list[CandidateRecord]:
    """Return the candidates whose preferred figure is known, the best candidate first."""
    orders = [_SORT_KEY[prefer], *(_SORT_KEY[one] for one in _TIE_BREAKERS[prefer])]
    known = [one for one in records if _SORT_KEY[prefer](one) < _UNKNOWN]
    return sorted(known, key=lambda one: [read(one) for read in orders])


def _choose(equals: Sequence[CandidateRecord], prefer: Preference) -> tuple[str, str]:
    """Return the best of candidates that are equally good in the preferred figure.

    The second value is why this candidate was chosen instead of the first of `equals`; empty if it
    is the first.
    """
    if not equals:
        return "", ""
    for figure in _TIE_BREAKERS[prefer]:
        read = _SORT_KEY[figure]
        chosen = min(equals, key=read)
        if read(chosen) < read(equals[0]):
            return chosen.label, _WHY_CHOSEN[figure]
        if any(read(one) > read(equals[0]) for one in equals):
            break  # the first is the best in this figure too
    return equals[0].label, ""


def _frontier(candidates: Sequence[Candidate]) -> set[str]:
    """Return the labels of the candidates on the frontier (see `CandidateRecord.frontier`)."""
    points = {}
    for one in candidates:
        speed = speed_of(one)
        if not one.dropped and speed is not None:
            memory = _UNKNOWN if one.memory is None else one.memory
            kld = one.kld.value if one.kld else _UNKNOWN
            points[one.label] = (memory, -speed.value, kld)
    return {
        label
        for label, point in points.items()
        if not any(
            other != point and all(a <= b for a, b in zip(other, point, strict=True))
            for other in points.values()
        )
    }


# ------------------------------------------------------------ comparisons


def _comparisons(
    by_label: Mapping[str, Candidate], best: str, others: Sequence[str], prefer: Preference
) -> list[ComparedRecord]:
    if not best:
        return []
    found = [(other, *_difference(by_label[best], by_label[other], prefer)) for other in others]
    sampled = [p for _, _, p, _ in found if p is not None]
    corrected = iter(holm(sampled))
    records = []
    for other, text, p, differs in found:
        adjusted = None if p is None else next(corrected)
        records.append(
            ComparedRecord(
                other=other,
                difference=text,
                p=p,
                p_holm=adjusted,
                difference_shown=differs if adjusted is None else adjusted < LEVEL,
            )
        )
    return records


def _difference(
    best: Candidate, other: Candidate, prefer: Preference
) -> tuple[str, float | None, bool]:
    """Return the difference in words, its p-value, and whether the two differ.

    The last value is only used if there is no p-value.
    """
    if prefer == "fastest":
        return _speed_difference(best, other)
    if prefer == "smallest":
        if not best.memory or not other.memory:
            return "memory not known", None, False
        ratio = other.memory / best.memory
        return f"{ratio:.3f} times as large", None, ratio > 1 + SAME_MEMORY
    if best.kld is None or other.kld is None:
        return "KLD not known", None, False
    further = other.kld.value - best.kld.value
    # The correlation of the two errors is not recorded, so take their sum: the error of the
    # difference is at most that.
    error = (best.kld.margin + other.kld.margin) / _z()
    if not error or not math.isfinite(error):
        return f"KLD {further:+.3g}", 0.0 if further and not error else 1.0, False
    return f"KLD {further:+.3g}", 2 * (1 - NormalDist().cdf(abs(further) / error)), False


def _speed_difference(best: Candidate, other: Candidate) -> tuple[str, float | None, bool]:
    pairs = [
        Pair(*key, other.speeds[key], value)
        for key, value in best.speeds.items()
        if key in other.speeds
    ]
    ratio = ratio_of(pairs)
    if ratio is None:
        return "no prompt in common", None, False
    if ratio.low is None or ratio.high is None:
        return f"{ratio.value:.2f} times as fast, measured once", 1.0, False
    return (
        f"{ratio.value:.2f} times as fast ({ratio.low:.2f} to {ratio.high:.2f})", ratio.p, False
    )  # fmt: skip


def _z() -> float:
    return NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
