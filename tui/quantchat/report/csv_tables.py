"""Snapshots as tidy CSV tables: one row per answer, per token, or per figure.

An empty cell means that the value is not known or does not exist.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise, zip_longest

from quantchat.document.csv_file import csv_file
from quantchat.document.document import DataTable
from quantchat.document.series import has_two_sides
from quantchat.features.load_test import tables as load_test
from quantchat.features.pick import tables as pick
from quantchat.features.score import tables as score
from quantchat.features.tasks import tables as tasks
from quantchat.snapshot import figures
from quantchat.snapshot.figures import AnswerFigure
from quantchat.snapshot.ratios import compare_sides
from quantchat.snapshot.schema import AnswerRecord, Snapshot, TurnRecord
from quantchat.wire.variant import Ledger

_Named = Sequence[tuple[str, Snapshot]]
"""Snapshots, each with the name of its file."""
_Value = str | float | None
_Key = tuple[_Value, ...]

_KEYS = ("snapshot", "turn", "task", "round", "variant", "order")
"""First columns of the tables with a row for each answer or token."""


def tables(snapshots: _Named) -> dict[str, bytes]:
    """Return the CSV files of `snapshots`, as the bytes of each file by file name."""
    found = {
        "answers.csv": _answers(snapshots),
        "tokens.csv": _tokens(snapshots),
        "figures.csv": _figures(snapshots),
        "picks.csv": pick.data_table(snapshots),
        "scores.csv": score.data_table(snapshots),
        "tasks.csv": tasks.data_table(snapshots),
        "requests.csv": load_test.data_table(snapshots),
    }
    always = ("answers.csv", "tokens.csv")
    return {name: csv_file(table) for name, table in found.items() if table.rows or name in always}


def _each(snapshots: _Named) -> Iterator[tuple[_Key, TurnRecord, AnswerRecord]]:
    for file, snapshot in snapshots:
        for turn in snapshot.turns:
            for answer in turn.answers:
                key = (file, turn.number, turn.task, turn.round, answer.variant, answer.order)
                yield key, turn, answer


def _answers(snapshots: _Named) -> DataTable:
    sampled = [figure for figure in figures.FIGURES if isinstance(figure, AnswerFigure)]
    columns = (
        *_KEYS,
        "state", "reason", "prompt_tokens", "cached_tokens", "output_tokens",
        *(figure.name for figure in sampled),
        "itl_p50_ms", "end_to_end_tok_s",
        "weights_bytes", "kv_cache_bytes", "process_bytes", "peak_bytes",
        "threads", "max_new_tokens", "temperature", "divergence_point",
        "prompt", "answer", "failure", "thoughts", "thought_tokens",
    )  # fmt: skip
    rows = []
    for key, turn, answer in _each(snapshots):
        timing, itl, request = answer.timing, answer.timing.itl_ms, answer.request
        rows.append((
            *key,
            answer.state, answer.reason, answer.prompt_tokens, answer.cached_tokens,
            None if timing.output_tokens < 0 else timing.output_tokens,
            *(figure.read(answer) for figure in sampled),
            itl.p50 if itl else None, timing.end_to_end_tok_s,
            *_bytes(answer.ledger),
            *((request.threads, request.max_new_tokens, request.sampling.temperature)
              if request else (None,) * 3),
            turn.divergence_point,
            turn.prompt, answer.text, answer.failure.reason if answer.failure else None,
            answer.thoughts or None,
            None if answer.thought_tokens < 0 else answer.thought_tokens,
        ))  # fmt: skip
    return DataTable(columns, tuple(rows))


def _bytes(ledger: Ledger | None) -> tuple[int | None, ...]:
    if ledger is None:
        return (None,) * 4
    parts = (ledger.weights, ledger.kv_cache, ledger.process, ledger.peak)
    return tuple(part if part >= 0 else None for part in parts)


def _tokens(snapshots: _Named) -> DataTable:
    rows: list[tuple[_Value, ...]] = []
    for key, _, answer in _each(snapshots):
        gaps = [None, *((b - a) / 1e6 for a, b in pairwise(answer.times_ns))]
        pieces = answer.output_pieces
        tokens = zip_longest(answer.ids, pieces, answer.times_ns, gaps[: len(answer.ids)])
        for index, (token, piece, at_ns, gap) in enumerate(tokens):
            since = (at_ns - answer.received_ns) / 1e6 if answer.received_ns else None
            rows.append((*key, index, token, since, gap, piece))
    columns = (*_KEYS, "index", "id", "since_prompt_ms", "itl_ms", "piece")
    return DataTable(columns, tuple(rows))


def _figures(snapshots: _Named) -> DataTable:
    """Return each figure of a measurement: both sides, B ÷ A and its 95 % interval."""
    columns = (
        "snapshot", "order", "variant_a", "variant_b", "figure", "unit", "a", "b",
        "ratio", "low", "high", "difference_shown",
    )  # fmt: skip
    rows = []
    for file, snapshot in snapshots:
        if snapshot.measurement is None or not has_two_sides(snapshot):
            continue
        key = (file, snapshot.measurement.order, *snapshot.shown)
        for one in compare_sides(snapshot):
            ratio = one.ratio
            shown = "yes" if ratio.shown else "no"
            values = (one.a, one.b, ratio.value, ratio.low, ratio.high, shown)
            rows.append((*key, one.name, one.unit, *values))
    return DataTable(columns, tuple(rows))
