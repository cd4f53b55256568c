"""A measurement as tables: both sides, B against A with intervals, each prompt, warnings."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean

from quantchat.document.document import (
    Block,
    Column,
    Table,
    cells,
    paragraph,
    paragraphs,
    table,
    warnings,
)
from quantchat.document.figures import (
    ORDERS,
    UNKNOWN,
    milliseconds,
    no_difference,
    number,
    plural,
    size,
)
from quantchat.document.series import Series, all_series, has_two_sides, letter, reported_turns
from quantchat.features.measure.headline import headline
from quantchat.snapshot.compared_sides import measured_turns
from quantchat.snapshot.ratios import FigureComparison, compare_sides, pooled_gaps
from quantchat.snapshot.schema import AnswerRecord, MeasurementRecord, Snapshot
from quantchat.statistics.drafts import Drafts
from quantchat.statistics.intervals import Ratio
from quantchat.text import one_line

CONTENDED = "contended: both decoded at once; not to be quoted"

_EXCERPT = 70
"""Characters of a prompt in a table."""


def blocks(snapshot: Snapshot) -> list[Block]:
    """Return the result of the measurement in `snapshot`. Raises ValueError if it has none."""
    quotable = headline(snapshot)
    parts: list[Block] = [paragraph(("Measured", "heading"), f" {how(snapshot)}")]
    if has_two_sides(snapshot):
        parts.append(ratios_table(snapshot))
    if quotable:
        parts.append(paragraph((quotable, "heading")))
    parts += paragraphs([*gap_lines(snapshot), *draft_lines(snapshot)])
    if _of(snapshot).order == "together":
        parts.append(paragraph((CONTENDED, "warning")))
    failed = failures(snapshot)
    return [
        *parts,
        *warnings(_of(snapshot).flags),
        *warnings([failed] if failed else [], "bad"),
    ]


def how(snapshot: Snapshot) -> str:
    """Return how `snapshot` was measured, in one line. Raises ValueError if it was not."""
    measurement = _of(snapshot)
    return (
        f"{ORDERS[measurement.order]}: {plural(len(measured_turns(snapshot)), 'turn')}, "
        f"{plural(len(measurement.tasks), 'prompt')}, {plural(measurement.rounds, 'round')}, "
        f"{measurement.warmup} warm-up"
        + (", answers continued past their end" if _past_end(measurement) else "")
        + (f", {_until(snapshot)}" if measurement.until_width else "")
        + (", stopped before the end" if measurement.stopped else "")
    )


def _until(snapshot: Snapshot) -> str:
    """Return how narrow the interval of the speed had to become, and whether it did."""
    width = _of(snapshot).until_width or 0.0
    compared = compare_sides(snapshot) if has_two_sides(snapshot) else []
    speed = next((one.ratio for one in compared if one.name == "decode_tps"), None)
    reached = (
        speed is not None
        and speed.low is not None
        and speed.high is not None
        and speed.high <= speed.low * (1 + width) ** 2
    )
    return f"until the interval of the speed is ±{width:.2%}{'' if reached else ', not reached'}"


def ratios_table(snapshot: Snapshot) -> Table:
    """Return a table of each figure on both sides, with the ratio B ÷ A and its interval."""
    left, right = snapshot.shown
    headings = (
        Column("figure (mean)", role="quiet"),
        Column(f"A: {left}", right=True),
        Column(f"B: {right}", right=True),
        Column("B ÷ A", right=True),
        Column("95 % interval"),
    )
    rows = [
        (row.figure, _value(row, row.a), _value(row, row.b), *ratio_texts(row.ratio))
        for row in compare_sides(snapshot)
    ]
    return table("", headings, rows)


WIDEST = 100.0
"""An interval is printed only if its upper end is at most this many times its lower end, which is a
factor of ten on each side of the ratio."""


def ratio_texts(ratio: Ratio) -> tuple[str, str]:
    """Return a ratio and its interval, or why it has no interval."""
    value = f"{ratio.value:.3f}"
    # Figures of a process are single values, read once or counted: their `clustered_by` is empty.
    if ratio.low is None or ratio.high is None:
        return value, "none: measured once" if ratio.clustered_by else "none: read once"
    if not ratio.clustered_by:
        return value, "exact: counted"
    if ratio.low <= 0 or ratio.high / ratio.low > WIDEST:
        return value, "too wide to be useful: measure more rounds"
    interval = f"{ratio.low:.3f} to {ratio.high:.3f}"
    if not ratio.shown:
        return value, f"{interval}, {no_difference(ratio)}"
    if ratio.prompts == 1:
        return value, f"{interval}, for this prompt alone"
    return value, interval


def gap_lines(snapshot: Snapshot) -> list[str]:
    """Return one line for each side: the percentiles of the ITL over all its measured answers."""
    return [
        f"ITL of {one_line(gaps.variant)}: p50 {milliseconds(gaps.itl_ms.p50)}, "
        f"p95 {milliseconds(gaps.itl_ms.p95)}, p99 {milliseconds(gaps.itl_ms.p99)} "
        f"over {plural(gaps.tokens, 'gap')}"
        for gaps in pooled_gaps(snapshot)
    ]


def draft_lines(snapshot: Snapshot) -> list[str]:
    """Return one line for each side with a draft: the acceptance over all measured answers."""
    lines = []
    for label in snapshot.shown:
        found = [
            answer.drafts
            for turn in measured_turns(snapshot)
            for answer in turn.answers
            if answer.variant == label and answer.drafts is not None
        ]
        total = Drafts.total(found)
        if total.acceptance is not None:
            lines.append(
                f"draft of {one_line(label)}: {total.acceptance:.1f} % accepted "
                f"({total.accepted} of {total.drafted} tokens), "
                f"{number(total.mean_length)} tokens per pass"
            )
    return lines


def failures(snapshot: Snapshot) -> str:
    """Return how many measured answers failed and why the first failed; empty if none failed."""
    failed = [a.failure for t in measured_turns(snapshot) for a in t.answers if a.failure]
    if not failed:
        return ""
    return f"{plural(len(failed), 'answer')} failed, the first: {one_line(failed[0].reason)}"


def _of(snapshot: Snapshot) -> MeasurementRecord:
    if snapshot.measurement is None:
        raise ValueError("the snapshot holds no measurement")
    return snapshot.measurement


def _past_end(measurement: MeasurementRecord) -> bool:
    """Return whether answers continued past the end-of-sequence token to reach a given length."""
    return measurement.ignore_eos or any(task.output_tokens for task in measurement.tasks)


def _value(row: FigureComparison, value: float) -> str:
    if row.unit == "B":
        return size(int(value))
    return milliseconds(value) if row.unit == "ms" else f"{number(value)} {row.unit}"


# ------------------------------------------------------------ by prompt


def prompts_table(snapshot: Snapshot, most: int | None = None) -> list[Block]:
    """Return a table of mean decode throughput and TTFT of each prompt over its rounds.

    It has the first `most` prompts, or all. The list is empty without a measurement.
    """
    measurement = snapshot.measurement
    if measurement is None or not measured_turns(snapshot):
        return []
    series = all_series(snapshot)
    figures = [f"{letter(one.place)}: {name}" for name in ("tok/s", "TTFT") for one in series]
    columns = [
        Column("prompt"),
        *(Column(name, right=True, wrap=False) for name in ("tokens", *figures)),
    ]
    answers = [_by_task(snapshot, one) for one in series]
    rows = []
    for number_, task in enumerate(measurement.tasks[:most], start=1):
        of_task = [by_task.get(number_, []) for by_task in answers]
        lengths = sorted({answer.prompt_tokens for group in of_task for answer in group})
        rates = [_mean(answer.timing.decode_tok_s for answer in group) for group in of_task]
        waits = [_mean(answer.timing.ttft_ms for answer in group) for group in of_task]
        texts = [
            f"{number_}. {_excerpt(task.prompt)}",
            " / ".join(map(str, lengths)) or UNKNOWN,
            *map(number, rates),
            *map(milliseconds, waits),
        ]
        rows.append(cells(texts))
    return [Table(_prompts_title(measurement, most), tuple(columns), tuple(rows))]


def _prompts_title(measurement: MeasurementRecord, most: int | None) -> str:
    count = len(measurement.tasks)
    all_of_them = most is None or count <= most
    which = "of each prompt" if all_of_them else f"of the first {most} of {count}"
    return f"Mean {which}, {ORDERS[measurement.order]}"


def _by_task(snapshot: Snapshot, series: Series) -> dict[int | None, list[AnswerRecord]]:
    turns = reported_turns(snapshot)
    found: dict[int | None, list[AnswerRecord]] = {}
    for turn, answer in zip(series.turns, series.answers, strict=True):
        found.setdefault(turns[turn - 1].task, []).append(answer)
    return found


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _excerpt(text: str) -> str:
    short = one_line(text)
    return short if len(short) <= _EXCERPT else short[: _EXCERPT - 1] + "…"
