"""A pick as parts of a document: the decision in words, the candidates, the Pareto frontier."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from quantchat.document.document import (
    Block,
    Cell,
    Column,
    DataTable,
    Role,
    Table,
    Verbatim,
    paragraph,
    paragraphs,
    table,
    warnings,
)
from quantchat.document.figures import UNKNOWN, number, plural, size
from quantchat.document.series import letter
from quantchat.features.pick.frontier import scatter
from quantchat.snapshot.pick import (
    CandidateRecord,
    ComparedRecord,
    LimitsRecord,
    MeasuredRecord,
    PickRecord,
)
from quantchat.snapshot.schema import Snapshot
from quantchat.text import one_line

_PREFERRED = {
    "fastest": "the fastest",
    "smallest": "the smallest",
    "closest": "the closest to the original",
}
_IN = {"fastest": "speed", "smallest": "memory", "closest": "distance from the original"}

_ROLES: dict[str, Role] = {
    "shown": "good",
    "shown otherwise": "bad",
    "undecided": "warning",
}
"""Outcome of a limit → the role of its cell."""
_WORDS = {"shown": "met", "shown otherwise": "missed", "undecided": "undecided"}
"""Outcome of a limit → the word that a table shows for it."""


def blocks(pick: PickRecord) -> list[Block]:
    """Return the candidates, the frontier as text, and finally the decision, for a terminal."""
    parts: list[Block] = [candidates_table(pick), *limits_tables(pick), *dropped(pick)]
    drawn = scatter(pick)
    if drawn:
        parts.append(Verbatim(drawn))
    return [*parts, *verdict(pick)]


def verdict(pick: PickRecord) -> list[Block]:
    """Return the decision in plain words."""
    parts: list[Block] = [paragraph((headline(pick), "heading"))]
    parts += paragraphs(explanation(pick))
    return [*parts, *warnings([pick.stopped] if pick.stopped else [])]


def headline(pick: PickRecord) -> str:
    """Return the recommendation in one sentence."""
    chosen = pick.of(pick.recommended) if pick.recommended else None
    if chosen is None:
        if any(not one.dropped and not one.misses_limit for one in pick.candidates):
            return "No recommendation yet: nothing was measured of the candidates that remain."
        return f"No variant meets the limits: {limits_text(pick.limits)}."
    sure = "" if chosen.meets_limits else ", but it is not shown yet that it meets all limits"
    return f"Take {one_line(chosen.label)}: {figures_text(chosen)}{sure}."


def explanation(pick: PickRecord) -> Iterator[str]:
    """Yield the reasons for the recommendation, one sentence each."""
    limits = pick.limits
    yield f"Asked for {_PREFERRED[limits.prefer]} variant with {limits_text(limits)}."
    chosen = pick.of(pick.recommended) if pick.recommended else None
    for one in chosen.limits if chosen else ():
        if one.outcome == "undecided":
            yield f"Undecided: {one.limit} ({one.reason})."
    tied = [one for one in pick.comparisons if not one.difference_shown]
    best, chosen_label = one_line(pick.best), one_line(pick.recommended)
    if tied:
        names = ", ".join(one_line(one.other) for one in tied)
        yield f"No difference in {_IN[limits.prefer]} is shown between {best} and {names}."
    if pick.because:
        yield f"{chosen_label} is taken because {pick.because}."
    runner_up = pick.of(pick.runner_up) if pick.runner_up else None
    if runner_up is not None:
        yield f"Runner-up: {one_line(runner_up.label)}: {figures_text(runner_up)}."
    for compared in pick.comparisons:
        yield f"{best} against {one_line(compared.other)}: {_compared_text(compared)}."
    if (corrected := sum(one.p is not None for one in pick.comparisons)) > 1:
        yield (
            f"The p-values are Holm's, corrected for {corrected} comparisons: two variants count as"
            " different if their p-value is below 0.05."
        )


def _compared_text(compared: ComparedRecord) -> str:
    text = compared.difference
    if compared.p_holm is not None:
        p = "p < 0.001" if compared.p_holm < 0.001 else f"p = {compared.p_holm:.2g}"
        text += f", {p}"
    return text if compared.difference_shown else f"{text}, no difference shown"


def figures_text(one: CandidateRecord) -> str:
    """Return the figures of a candidate in words."""
    parts = []
    if one.speed is not None:
        parts.append(f"decodes {interval_text(one.speed)} tok/s")
    if one.memory is not None:
        parts.append(f"takes {size(one.memory)}")
    if one.kld is not None:
        parts.append(f"KLD {interval_text(one.kld)}" if one.kld.value else "is the reference")
    if one.drop is not None and one.drop.value:
        parts.append(f"accuracy {-one.drop.value:+.1%}")
    return ", ".join(parts) or "no figure is known"


def interval_text(measured: MeasuredRecord) -> str:
    """Return a figure with its interval."""
    value = _digits(measured.value)
    if measured.low is None or measured.high is None or measured.low == measured.high:
        return value
    return f"{value} ({_digits(measured.low)} to {_digits(measured.high)})"


def _digits(value: float) -> str:
    return number(value) if abs(value) >= 0.995 else f"{value:.3g}"


def limits_text(limits: LimitsRecord) -> str:
    """Return the limits in words."""
    parts = []
    if limits.max_memory is not None:
        parts.append(f"at most {size(limits.max_memory)} at {limits.context:,} tokens of context")
    if limits.min_tps is not None:
        parts.append(f"at least {number(limits.min_tps)} tok/s")
    if limits.max_kld is not None:
        parts.append(f"a KLD of at most {limits.max_kld:g}")
    if limits.max_drop is not None:
        parts.append(f"at most {limits.max_drop * 100:g} % points of accuracy lost")
    return ", ".join(parts) or "no limits"


# ------------------------------------------------------------ tables


def candidates_table(pick: PickRecord) -> Table:
    """Return every candidate with its figures."""
    drop = any(one.drop is not None for one in pick.candidates)
    headings = [
        Column(),
        Column("variant"),
        Column(f"memory, {pick.limits.context:,} tokens", right=True),
        Column("decode tok/s (95 % CI)", right=True),
        Column("KLD, nats (95 % CI)", right=True),
        *([Column("accuracy lost", right=True)] if drop else []),
        Column("on the frontier"),
    ]
    rows = []
    for place, one in enumerate(pick.candidates):
        texts = [
            Cell(letter(place)),
            Cell(one.label, _role_of(pick, one), role="heading" if _first(pick, one) else "plain"),
            Cell(size(one.memory), "estimated" if one.memory_how == "estimated" else ""),
            Cell(interval_text(one.speed) if one.speed else UNKNOWN),
            Cell(_kld(one)),
        ]
        if drop:
            texts.append(Cell(f"{one.drop.value:+.1%}" if one.drop else UNKNOWN))
        rows.append((*texts, Cell("yes" if one.frontier else "")))
    return table("Candidates", headings, rows)


_ORDERS: dict[str, Callable[[CandidateRecord], float | None]] = {
    "memory": lambda one: one.memory,
    "tok/s": lambda one: -one.speed.value if one.speed else None,
    "KLD": lambda one: one.kld.value if one.kld else None,
}
"""Column of `live_table` → the function that returns the sort key, lowest for the best."""

SORTED_BY = ("", *_ORDERS)
"""Columns by which `live_table` can be sorted; empty: the profile's order."""


def live_table(
    pick: PickRecord, states: Mapping[str, str], by: str = "", *, worst_first: bool = False
) -> Table:
    """Return the candidates for a screen, with what is being done with each of them.

    `states` has a few words for each label. `by` is one of `SORTED_BY`; unknown values come last.
    """

    def heading(name: str) -> Column:
        return Column(f"{name} {'▼' if worst_first else '▲'}" if name == by else name, right=True)

    drop = any(one.drop is not None for one in pick.candidates)
    headings = [
        Column(),
        Column("variant"),
        *map(heading, _ORDERS),
        *([Column("accuracy lost", right=True)] if drop else []),
        Column("frontier"),
        Column("state"),
    ]
    rows = [
        (
            Cell(letter(place)),
            Cell(one.label, role="heading" if _first(pick, one) else "plain"),
            Cell(size(one.memory)),
            Cell(_plus_minus(one.speed)),
            Cell(_plus_minus(one.kld)),
            *([Cell(f"{one.drop.value:+.1%}" if one.drop else UNKNOWN)] if drop else []),
            Cell("yes" if one.frontier else ""),
            Cell(states.get(one.label, ""), role="quiet"),
        )
        for place, one in _sorted_candidates(pick, by, worst_first=worst_first)
    ]
    return table("", headings, rows)


def _sorted_candidates(
    pick: PickRecord, by: str, *, worst_first: bool
) -> list[tuple[int, CandidateRecord]]:
    """Return the candidates sorted by the column `by`, each with its place in the profile."""
    numbered = list(enumerate(pick.candidates))
    if not by:
        return numbered[::-1] if worst_first else numbered

    def value(one: tuple[int, CandidateRecord]) -> float:
        found = _ORDERS[by](one[1])
        return math.inf if found is None else -found if worst_first else found

    return sorted(numbered, key=value)


def _plus_minus(measured: MeasuredRecord | None) -> str:
    """Return `figure ±half the interval's width`, which is shorter text than the two ends."""
    if measured is None:
        return UNKNOWN
    if measured.low is None or measured.high is None or measured.low == measured.high:
        return _digits(measured.value) if measured.value else "0"
    return f"{_digits(measured.value)} ±{_digits((measured.high - measured.low) / 2)}"


def _first(pick: PickRecord, one: CandidateRecord) -> bool:
    return one.label == pick.recommended


def _role_of(pick: PickRecord, one: CandidateRecord) -> str:
    if one.label == pick.recommended:
        return "recommended"
    if one.label == pick.runner_up:
        return "runner-up"
    return "dropped" if one.dropped else "reference" if one.label == pick.reference else ""


def _kld(one: CandidateRecord) -> str:
    if one.kld is None:
        return UNKNOWN
    return interval_text(one.kld) if one.kld.value else "0"


def limits_tables(pick: PickRecord) -> list[Block]:
    """Return what is shown about each limit of each candidate; nothing without limits."""
    limits = next((one.limits for one in pick.candidates if one.limits), [])
    if not limits:
        return []
    headings = [Column("limits"), *(Column(one.limit) for one in limits)]
    rows = [
        (
            Cell(one.label),
            *(Cell(_WORDS[x.outcome], x.reason, role=_ROLES[x.outcome]) for x in one.limits),
        )
        for one in pick.candidates
        if one.limits
    ]
    return [table("", headings, rows)]


def dropped(pick: PickRecord) -> list[Block]:
    """Return a warning for each candidate that was dropped, with the reason."""
    return warnings(f"{one.label}: {one.dropped}" for one in pick.candidates if one.dropped)


def facts(pick: PickRecord) -> list[str]:
    """Return what was measured and how, one line each."""
    measured = [one for one in pick.candidates if one.answers]
    lines = [f"picked among {plural(len(pick.candidates), 'variant')}, {len(measured)} measured"]
    if pick.reference:
        lines.append(f"reference of the KLD: {one_line(pick.reference)}")
    return lines


# ------------------------------------------------------------ CSV

_COLUMNS = (
    "snapshot", "variant", "place", "dropped", "memory_bytes", "memory_how", "decode_tps",
    "decode_tps_low", "decode_tps_high", "kld", "kld_low", "kld_high", "accuracy_lost",
    "accuracy_lost_low", "accuracy_lost_high", "frontier", "limits_met",
)  # fmt: skip


def data_table(snapshots: Sequence[tuple[str, Snapshot]]) -> DataTable:
    """Return each candidate of each pick for CSV."""
    rows = []
    for file, snapshot in snapshots:
        pick = snapshot.pick
        for one in pick.candidates if pick else ():
            assert pick is not None  # noqa: S101
            rows.append((
                file, one.label, _role_of(pick, one), one.dropped, one.memory, one.memory_how,
                *_ends(one.speed), *_ends(one.kld), *_ends(one.drop),
                "yes" if one.frontier else "no",
                "no" if one.misses_limit else "yes" if one.meets_limits else "undecided",
            ))  # fmt: skip
    return DataTable(_COLUMNS, tuple(rows))


def _ends(measured: MeasuredRecord | None) -> tuple[float | None, float | None, float | None]:
    return (measured.value, measured.low, measured.high) if measured else (None, None, None)
