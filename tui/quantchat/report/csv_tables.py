"""Snapshots as tidy tables (RFC 4180, UTF-8): a row an answer, a token, a figure of a measurement.

An empty cell is "not known". Text is neutral, and where a spreadsheet would take it for a formula
it begins with an apostrophe (OWASP, "CSV Injection"); the raw text is in the snapshot.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import Any

from quantchat.snapshot import evaluation
from quantchat.snapshot.schema import AnswerRecord, Snapshot, TurnRecord
from quantchat.statistics.latency import itl_ms
from quantchat.statistics.quality import Divergence, Quantity
from quantchat.text import neutralise
from quantchat.wire.variant import Ledger

# The wide ones are those of Japanese and Chinese keyboards, which some spreadsheets take as well.
_FORMULA = tuple("=+-@\t\r\n＝＋－＠")

_KEYS = ("snapshot", "turn", "task", "round", "variant", "order")
_ANSWERS = (
    *_KEYS,
    "state", "reason", "prompt_tokens", "cached_tokens", "output_tokens",
    "ttft_ms", "tpot_ms", "itl_p50_ms", "itl_p95_ms", "itl_p99_ms",
    "prefill_tok_s", "decode_tok_s", "end_to_end_tok_s",
    "weights_bytes", "kv_cache_bytes", "process_bytes", "peak_bytes",
    "threads", "max_new_tokens", "temperature", "divergence_point",
    "prompt", "answer", "failure", "thoughts", "thought_tokens",
)  # fmt: skip
_TOKENS = (*_KEYS, "index", "id", "since_prompt_ms", "itl_ms", "piece")

_SCORES = (
    "snapshot", "model", "role", "figure", "percent", "value", "error", "clustered_error",
)  # fmt: skip

_TASKS = (
    "snapshot", "model", "role", "task", "version", "few_shot", "documents", "metric", "filter",
    "value", "error", "lost", "gained", "p",
)  # fmt: skip

_Named = Sequence[tuple[str, Snapshot]]


def tables(snapshots: _Named) -> dict[str, bytes]:
    """The tables of `snapshots`, each with the name of its file, by the name of the table's."""
    scores, tasks = list(_scores(snapshots)), list(_tasks(snapshots))
    return {
        "answers.csv": _written(_ANSWERS, _answers(snapshots)),
        "tokens.csv": _written(_TOKENS, _tokens(snapshots)),
        **({"scores.csv": _written(_SCORES, scores)} if scores else {}),
        **({"tasks.csv": _written(_TASKS, tasks)} if tasks else {}),
    }


def _written(head: Sequence[str], rows: Iterable[Iterable[Any]]) -> bytes:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return file.getvalue().encode()


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value  # a number, or None, which is written as an empty cell
    text = neutralise(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _each(snapshots: _Named) -> Iterator[tuple[tuple[Any, ...], TurnRecord, AnswerRecord]]:
    for file, snapshot in snapshots:
        for turn in snapshot.turns:
            for answer in turn.answers:
                key = (file, turn.number, turn.task, turn.round, answer.variant, answer.order)
                yield key, turn, answer


def _answers(snapshots: _Named) -> Iterator[tuple[Any, ...]]:
    for key, turn, answer in _each(snapshots):
        timing, itl, request = answer.timing, answer.timing.itl_ms, answer.request
        yield (
            *key,
            answer.state, answer.reason, answer.prompt_tokens, answer.cached_tokens,
            None if timing.output_tokens < 0 else timing.output_tokens,
            timing.ttft_ms, timing.tpot_ms,
            *((itl.p50, itl.p95, itl.p99) if itl else (None,) * 3),
            timing.prefill_tok_s, timing.decode_tok_s, timing.end_to_end_tok_s,
            *_bytes(answer.ledger),
            *((request.threads, request.max_new_tokens, request.sampling.temperature)
              if request else (None,) * 3),
            turn.divergence_point,
            turn.prompt, answer.text, answer.failure.reason if answer.failure else None,
            answer.thoughts or None,
            None if answer.thought_tokens < 0 else answer.thought_tokens,
        )  # fmt: skip


def _bytes(ledger: Ledger | None) -> tuple[int | None, ...]:
    if ledger is None:
        return (None,) * 4
    parts = (ledger.weights, ledger.kv_cache, ledger.process, ledger.peak)
    return tuple(part if part >= 0 else None for part in parts)


def _tokens(snapshots: _Named) -> Iterator[tuple[Any, ...]]:
    for key, _, answer in _each(snapshots):
        gaps = [None, *itl_ms(answer.times_ns)]
        pieces = answer.output_pieces
        tokens = zip_longest(answer.ids, pieces, answer.times_ns, gaps[: len(answer.ids)])
        for index, (token, piece, at_ns, gap) in enumerate(tokens):
            since = (at_ns - answer.received_ns) / 1e6 if answer.received_ns else None
            yield (*key, index, token, since, gap, piece)


def _scores(snapshots: _Named) -> Iterator[tuple[Any, ...]]:
    """Each figure against the reference; `percent` is that of a percentile."""
    for file, snapshot in snapshots:
        for model in snapshot.score.models if snapshot.score else ():
            key = (file, model.label, model.role)
            if model.perplexity is not None:
                yield (*key, "perplexity", None, *_quantity(model.perplexity))
            if model.divergence is not None:
                yield from ((*key, *row) for row in _seen(model.divergence))


def _seen(seen: Divergence) -> Iterator[tuple[Any, ...]]:
    for name in ("log_ratio", "perplexity_difference", "kld_mean", "delta_p_mean", "delta_p_rms"):
        yield (name, None, *_quantity(getattr(seen, name)))
    yield ("same_top", None, *_quantity(seen.same_top))
    yield ("kld_max", None, seen.kld_max, None, None)
    for name, percentiles in (("kld", seen.kld_percentiles), ("delta_p", seen.delta_p_percentiles)):
        for one in percentiles:
            yield (name, one.percent, *_quantity(one.figure))


def _quantity(quantity: Quantity) -> tuple[float | None, ...]:
    return quantity.value, quantity.error, quantity.clustered


def _tasks(snapshots: _Named) -> Iterator[tuple[Any, ...]]:
    """Each figure of each task; lost, gained and p are against the reference."""
    for file, snapshot in snapshots:
        found = snapshot.evaluation
        for model in found.models if found else ():
            for task, figure in evaluation.figures(model):
                seen = evaluation.flips(task, figure, found.reference if found else None)
                yield (
                    file, model.label, model.role, task.task, task.version, task.few_shot,
                    task.documents, figure.metric, figure.filter, figure.value, figure.error,
                    *((seen.lost, seen.gained, seen.p) if seen else (None,) * 3),
                )  # fmt: skip
