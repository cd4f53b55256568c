"""A load test as parts of a document: a table and plots over the levels, warnings, CSV rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from quantchat.document.document import (
    Block,
    Cell,
    Column,
    DataTable,
    Facts,
    Table,
    paragraph,
    table,
    warnings,
)
from quantchat.document.figures import UNKNOWN, milliseconds, no_difference, number, plural, size
from quantchat.document.model_results import Result, failures, heading, not_comparable
from quantchat.snapshot.load_test import LoadTestedRecord, LoadTestRecord, Point, points
from quantchat.snapshot.schema import Snapshot
from quantchat.statistics.intervals import Interval, Pair, Ratio, ratio_of
from quantchat.statistics.latency import Percentiles
from quantchat.statistics.serving import end_to_end_ms, knee, output_tps, ttft_ms


def blocks(record: LoadTestRecord) -> list[Block]:
    """Return the whole load test: how it was run, a table for each variant, the warnings."""
    return [Facts(tuple(facts(record))), *tables(record), *warnings(load_warnings(record))]


def facts(record: LoadTestRecord) -> list[str]:
    """Return how the test was run and what the figures mean, one line each."""
    lines = [
        f"{plural(record.rounds, 'round')} of each level,"
        f" {record.output_tokens} tokens to an answer",
    ]
    if any(model.rounds for model in record.models):
        count = (
            f"{record.requests} requests"
            if record.requests
            else "4 times as many requests as at once"
        )
        lines.append(f"servers: {count} in a round; TTFT from sending a request")
    if any(model.batches for model in record.models):
        mixed = f"{record.prompt_tokens // 4} to " if record.mixed else ""
        lines.append(
            f"local models: static batches, prompts of {mixed}{record.prompt_tokens} tokens; all"
            " begin together, so TTFT is the time to compute every prompt of the batch"
        )
    if record.slo:
        lines.append(f"goodput: requests per second that met {record.slo}")
    lines.append("± is half of a 95 % interval over the rounds")
    return lines


def load_warnings(record: LoadTestRecord) -> list[str]:
    """Return what failed, what was left out, and why to doubt figures, one line each."""
    lines = failures(record.models)
    if record.undone:
        lines.append(f"stopped before the end, not measured: {', '.join(record.undone)}")
    for model in record.models:
        lines += [f"{model.label}: {text}" for text in (model.left_out, model.note) if text]
        for point in points(record, model):
            if problem := next((one.failure for one in point.batches if one.failure), ""):
                lines.append(f"{model.label}, batch of {point.name}: {problem}")
            requests = [one for times in point.rounds for one in times]
            errors = [one.error for one in requests if one.error]
            if errors and len(errors) < len(requests):
                failed = f"{len(errors)} of {len(requests)} requests failed"
                load = f"a load of {point.name}" if point.level.rate else f"{point.name} at once"
                lines.append(f"{model.label}, {load}: {failed}: {errors[0]}")
    return lines


def tables(record: LoadTestRecord) -> Iterator[Block]:
    """Yield tables of throughput and latency for each variant, then the ratios between variants.

    Each table has a row for each level. Below its tables, a variant may have a line about its knee:
    the lowest level that reaches 90 % of the highest output throughput. The ratios are those of
    every further variant to the first one.
    """
    by_model = [(model, points(record, model)) for model in record.models]
    for model, measured in by_model:
        if measured:
            yield _levels(record, model, measured)
            yield _latencies(model, measured)
            if text := _knee(measured):
                yield paragraph(text, indent=2)
    yield from _against(by_model)


def _levels(record: LoadTestRecord, model: LoadTestedRecord, measured: Sequence[Point]) -> Table:
    local = bool(model.batches)
    headings = [_level_name(model, measured), "output tok/s", "requests/s"]
    headings += ["goodput/s"] if record.slo else []
    headings += ["KV cache", "peak memory"] if local else ["failed"]
    rows = []
    for point in measured:
        at = point.figures
        if at is None:
            failed = [UNKNOWN] * (len(headings) - 1)
            rows.append([point.name, *failed])
            continue
        cells = [point.name, rate_text(at.output_tps), rate_text(at.requests_per_s)]
        cells += [rate_text(at.goodput_per_s)] if at.goodput_per_s else []
        cells += [size(point.kv_bytes), size(point.peak_bytes)] if local else [str(at.failed)]
        rows.append(cells)
    return table(model.label, [Column(headings[0], right=True), *headings[1:]], rows)


def _latencies(model: LoadTestedRecord, measured: Sequence[Point]) -> Table:
    """Return a table of the latencies of each level, separate so that it fits into a terminal."""
    headings = ["TTFT p50", "TTFT p95", "ITL p50", "ITL p95", "ITL p99", "whole answer p95"]
    rows = []
    for point in measured:
        if (at := point.figures) is not None:
            cells = [point.name, latency_text(at.ttft_ms, 50), latency_text(at.ttft_ms, 95)]
            cells += [latency_text(at.itl_ms, percent) for percent in (50, 95, 99)]
            rows.append([*cells, latency_text(at.e2e_ms, 95)])
    level = Column(_level_name(model, measured), right=True)
    return table(f"{model.label}: latency", [level, *headings], rows)


def _level_name(model: LoadTestedRecord, measured: Sequence[Point]) -> str:
    """Return the heading above the names of the levels of `model`."""
    if model.batches:
        return "batch"
    return "load" if any(point.level.rate for point in measured) else "at once"


def rate_text(value: Interval) -> str:
    """Return a rate, with ± half of its interval if there is one."""
    if value.low is None or value.high is None:
        return number(value.value)
    return f"{number(value.value)} ±{number((value.high - value.low) / 2)}"


def latency_text(value: Percentiles | None, percent: int) -> str:
    """Return the percentile `percent` of a latency in ms; – if it is not known."""
    return milliseconds(getattr(value, f"p{percent}")) if value else UNKNOWN


def _knee(measured: Sequence[Point]) -> str:
    loads = [point for point in measured if point.figures and not point.level.rate]
    place = knee([point.figures.output_tps.value for point in loads if point.figures])
    if place is None or place == len(loads) - 1:
        return ""
    return (
        f"knee at {loads[place].name}: the smallest number at once that gives 90 % of the highest"
        " output throughput; at higher numbers requests mostly wait"
    )


def _against(by_model: Sequence[tuple[LoadTestedRecord, list[Point]]]) -> Iterator[Table]:
    """Yield, level by level, each further variant's output throughput ÷ that of the first."""
    if len(by_model) < 2:
        return
    (first, base), *others = by_model
    for other, measured in others:
        yield from _ratios(f"{other.label} ÷ {first.label}", other, measured, base)


def _ratios(
    title: str, model: LoadTestedRecord, measured: list[Point], base: list[Point]
) -> Iterator[Table]:
    """Yield a table of the output throughput of `model` ÷ that of `base`, if levels are the same.

    `measured` are the points of `model`.
    """
    by_level = {point.level: point for point in base}
    rows = []
    for point in measured:
        ratio = _ratio(by_level.get(point.level), point)
        if ratio is not None:
            rows.append((point.name, number(ratio.value), _interval(ratio), _ratio_cell(ratio)))
    if rows:
        level = Column(_level_name(model, measured), right=True)
        headings = (level, "output tok/s, ratio", "95 % interval", Column())
        yield table(title, headings, rows)


def _ratio(a: Point | None, b: Point) -> Ratio | None:
    if a is None or a.figures is None or b.figures is None:
        return None
    sides = zip(map(output_tps, a.rounds), map(output_tps, b.rounds), strict=False)
    return ratio_of([Pair("level", number, x, y) for number, (x, y) in enumerate(sides)])


def _interval(ratio: Ratio) -> str:
    if ratio.low is None or ratio.high is None:
        return UNKNOWN
    return f"{ratio.low:.3g} to {ratio.high:.3g}"


def _ratio_cell(ratio: Ratio) -> Cell:
    if ratio.low is None:
        return Cell("one round: no interval", role="quiet")
    return Cell("" if ratio.shown else no_difference(ratio), role="quiet")


# ------------------------------------------------------------ several runs


def compared_blocks(
    runs: Sequence[Result[LoadTestRecord]], obstacles: Sequence[str]
) -> list[Block]:
    """Return the tables of each run, then how throughput differs from the first run.

    The ratios are those of each variant to the variant with the same label in the first run. If the
    runs are not comparable, warnings say why.
    """
    parts: list[Block] = []
    for position, one in enumerate(runs, 1):
        parts += [*heading(position, one.file, one.snapshot), *blocks(one.found)]
    first, *others = (one.found for one in runs)
    of_first = {model.label: points(first, model) for model in first.models}
    for position, record in enumerate(others, 2):
        for model in record.models:
            if base := of_first.get(model.label):
                title = f"{model.label}: run {position} ÷ run 1"
                parts += _ratios(title, model, points(record, model), base)
    return [*parts, *not_comparable(obstacles)]


# ------------------------------------------------------------ CSV

_COLUMNS = (
    "snapshot", "variant", "concurrency", "rate", "round", "sent_ns", "ttft_ms", "e2e_ms",
    "prompt_tokens", "output_tokens", "chunks", "error",
)  # fmt: skip


def data_table(snapshots: Sequence[tuple[str, Snapshot]]) -> DataTable:
    """Return every request of each load test for CSV."""
    rows: list[tuple[str | float | None, ...]] = []
    for file, snapshot in snapshots:
        found = snapshot.load_test
        for model in found.models if found else ():
            for point in points(found, model) if found else ():
                for count, times in enumerate(point.rounds, start=1):
                    rows += [
                        (
                            file, model.label, point.level.concurrency, point.level.rate, count,
                            one.sent_ns,
                            ttft_ms(one) if not one.error else None,
                            end_to_end_ms(one) if not one.error else None,
                            one.prompt_tokens if one.prompt_tokens >= 0 else None,
                            one.output_tokens, len(one.chunks_ns), one.error,
                        )
                        for one in times
                    ]  # fmt: skip
    return DataTable(_COLUMNS, tuple(rows))
