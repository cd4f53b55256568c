"""Scores as parts of a document: tables of models and of the pair, warnings, CSV rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from quantchat.document.document import (
    Block,
    Cell,
    Column,
    DataTable,
    Facts,
    Table,
    cells,
    paragraphs,
    table,
    warnings,
)
from quantchat.document.figures import UNKNOWN, size, with_error
from quantchat.document.model_results import Result, failures, heading, not_comparable, notes
from quantchat.measuring.score_plan import LONGEST
from quantchat.snapshot.quality_gates import mean_of_tokens
from quantchat.snapshot.schema import Snapshot
from quantchat.snapshot.score import LocatedRecord, ScoredRecord, ScoreRecord, SettingRecord
from quantchat.statistics.quality import Divergence, Percentile, Quantity, detectable

_ROLES = {"reference": "reference", "floor": "noise floor", "variant": ""}
"""Role of a model → the words beside its label."""

_DELTA_P_SHOWN = (1.0, 5.0, 50.0, 95.0, 99.0)
"""Percentiles of Δp that fit into the table. A snapshot and a CSV file have more."""

ERRORS = (
    "PPL is perplexity, ΔPPL the difference from the reference's, paired by token. ± is one "
    "standard error, over tokens or over passages of 256 tokens, whichever is larger."
)


def blocks(score: ScoreRecord) -> list[Block]:
    """Return the whole score: which text was read and how, the tables, the warnings."""
    return [
        Facts(tuple(facts(score))),
        *tables(score),
        *paragraphs(undetected(score)),
        *warnings(score_warnings(score)),
    ]


def facts(score: ScoreRecord) -> list[str]:
    """Return which text was read, how, and what the figures mean, one line each."""
    lines = [f"read {_read(score.setting)}", _windows(score.setting)]
    if score.storage is not None:
        stored = score.storage
        lines.append(
            f"the reference's logits were stored in {stored.form} ({size(stored.bytes)}), at a KLD"
            f" of {stored.kld_mean:.1e} from those it computed, {stored.kld_max:.1e} at most"
        )
    return [*lines, ERRORS]


def undetected(score: ScoreRecord) -> list[str]:
    """Return a line for each variant whose perplexity is not shown to differ from the reference's.

    The line says how large a difference must be for this text to show it.
    """
    lines = []
    for model in score.models:
        if model.divergence is None or model.role != "variant":
            continue
        ratio, units = model.divergence.log_ratio, score.setting.independent
        found, least = mean_of_tokens(ratio, units), detectable(ratio, units)
        if least is not None and abs(found.value) <= found.margin:
            lines.append(
                f"{model.label}: no difference of perplexity shown; one of {math.expm1(least):.1%}"
                " would have been, in four of five cases"
            )
    return lines


def _read(setting: SettingRecord) -> str:
    return (
        f"{setting.text} (SHA-256 {setting.text_sha256[:12]}): {setting.tokens}"
        f" tokens of tokenizer {setting.tokenizer_hash[:12]}, {setting.positions} scored"
    )


def _windows(setting: SettingRecord) -> str:
    begin = f"begun with {setting.begin}" if setting.begin else "begun without a BOS"
    limit = f" ({LONGEST} was too long: {setting.window_limit})" if setting.window_limit else ""
    early = "only for the KLD by depth" if setting.depth_ends else "only read"
    return (
        f"windows of {setting.window} tokens{limit}, a stride of {setting.stride}, the first"
        f" {setting.context} of each {early}, {begin}"
    )


def score_warnings(score: ScoreRecord) -> list[str]:
    """Return which models failed or were not scored, and why to doubt figures, one line each."""
    lines = failures(score.models)
    if score.unread:
        lines.append(f"stopped before the end, not read: {', '.join(score.unread)}")
    for model in score.models:
        if model.role == "reference" and model.model_info:
            kernel = model.model_info.kernel
            if kernel != "not quantized":
                lines.append(f"the reference is itself quantized: {kernel}")
    return lines + notes([model for model in score.models if model.role != "floor"])


def tables(score: ScoreRecord) -> Iterator[Table]:
    """Yield the tables of the score.

    They compare the models with the reference (means, KLD by depth, percentiles), then each of the
    first two variants with the other, and show which layers cause a variant's error.
    """
    yield reference_table(score)
    seen = [(named(model), model.divergence) for model in score.models if model.divergence]
    if seen:
        if table_of_depths := depths_table(score):
            yield table_of_depths
        yield _percentiles("Percentiles of the KLD from the reference, nats", seen, _klds)
        yield _percentiles("Percentiles of Δp of the actual next token, %", seen, _delta_ps)
    if score.pair:
        yield pair_table(score)
    for model in score.models:
        if model.located is not None:
            yield located_table(model.label, model.located)


LAYERS_SHOWN = 8
"""Number of worst layers, and of worst modules, in a table; a snapshot has all of them."""


def located_table(label: str, located: LocatedRecord) -> Table:
    """Return the worst layers of a variant and the worst modules inside them."""
    layers = [part for part in located.parts if part.layer]
    modules = [part for part in located.parts if not part.layer]
    total = sum(part.kld for part in layers)
    rows = []
    for parts in (layers, modules):
        for part in sorted(parts, key=lambda one: one.kld, reverse=True)[:LAYERS_SHOWN]:
            share = f"{part.kld / total:.0%}" if part.layer and total > 0 else ""
            rows.append((part.name, with_error(Quantity(part.kld, part.error, None)), share))
    title = (
        f"Where the error of {label} comes from: KLD of the reference with one part of it"
        f" quantized, nats ({located.positions} tokens; all together {located.whole:.3g},"
        f" the sum of the layers {total:.3g})"
    )
    headings = ("layer, then modules of the worst layers", "KLD", "share of the layers")
    split = table(title, headings, rows)
    return replace(split, groups=frozenset({min(LAYERS_SHOWN, len(layers))}))


def reference_table(score: ScoreRecord) -> Table:
    """Return a table that compares each model with the reference."""
    rows = []
    for model in score.models:
        texts = (perplexity_text(model), *divergence_texts(model.divergence))
        rows.append(cells((named(model), size(model.weights), *texts)))
    return table("Against the reference", ("", "weights", "PPL", *DIVERGENCES), rows)


def depths_table(score: ScoreRecord) -> Table | None:
    """Return a table of the mean KLD by depth; None if no model has it, as in older files.

    Depth is the position of the predicted token in its window.
    """
    rows = [
        cells((named(model), *(with_error(part) for part in model.divergence.kld_by_depth)))
        for model in score.models
        if model.divergence and model.divergence.kld_by_depth
    ]
    if not rows:
        return None
    headings = [f"{first + 1} to {last}" for first, last in pairwise(score.setting.depths)]
    title = "Mean KLD by depth: position of the predicted token in its window, nats"
    return table(title, ("", *headings), rows)


def pair_table(score: ScoreRecord) -> Table:
    """Return a table of the first two variants, each compared with the other as its reference."""
    headings = (Column(), Column("seen from"), *DIVERGENCES)
    rows = [(one.variant, one.seen_from, *divergence_texts(one.divergence)) for one in score.pair]
    return table("The pair, each seen from the other", headings, rows)


DIVERGENCES = ("ΔPPL", "KLD, nats", "RMS Δp, %", "top-1 agreement, %")
"""Headings of the columns that compare a model with its reference."""


def perplexity_text(model: ScoredRecord) -> str:
    """Return the perplexity of `model` with its error, or `–` if the model failed."""
    return with_error(model.perplexity, least=2) if model.perplexity else UNKNOWN


def divergence_texts(divergence: Divergence | None) -> list[str]:
    """Return the figures below the headings of `DIVERGENCES`."""
    if divergence is None:
        return [UNKNOWN] * len(DIVERGENCES)
    return [
        with_error(divergence.perplexity_difference, signed=True),
        with_error(divergence.kld_mean),
        with_error(divergence.delta_p_rms, times=100),
        with_error(divergence.top1_agreement, times=100),
    ]


_Percentiles = Callable[[Divergence], list[tuple[str, str]]]


def _percentiles(
    title: str, divergences: Iterable[tuple[Cell, Divergence]], read: _Percentiles
) -> Table:
    rows = [(name, read(divergence)) for name, divergence in divergences]
    headings = ("", *(heading for heading, _ in rows[0][1]))
    return table(title, headings, [cells((name, *(text for _, text in row))) for name, row in rows])


def _klds(divergence: Divergence) -> list[tuple[str, str]]:
    texts = [(_percent(one), with_error(one.figure)) for one in divergence.kld_percentiles]
    return [*texts, ("maximum", f"{divergence.kld_max:.3g}")]


def _delta_ps(divergence: Divergence) -> list[tuple[str, str]]:
    shown = [one for one in divergence.delta_p_percentiles if one.percent in _DELTA_P_SHOWN]
    texts = [(_percent(one), with_error(one.figure, times=100, signed=True)) for one in shown]
    return [("mean", with_error(divergence.delta_p_mean, times=100, signed=True)), *texts]


def _percent(one: Percentile) -> str:
    return f"{one.percent:g} %"


def named(model: ScoredRecord) -> Cell:
    """Return the label of `model`, and its role unless it is a variant."""
    return Cell(model.label, _ROLES[model.role])


# ------------------------------------------------------------ several scores


def compared_blocks(scores: Sequence[Result[ScoreRecord]], obstacles: Sequence[str]) -> list[Block]:
    """Return the text, each model of each run, and why the runs are not comparable, if so."""
    parts: list[Block] = []
    for position, one in enumerate(scores, 1):
        parts += heading(position, one.file, one.snapshot)
    if not obstacles:
        parts += paragraphs(f"all {line}" for line in facts(scores[0].found)[:2])
    return [*parts, _several_table(scores), *not_comparable(obstacles)]


def _several_table(scores: Sequence[Result[ScoreRecord]]) -> Table:
    """Return a table in which the rows of one model, from all runs, are adjacent."""
    rows = []
    for label in dict.fromkeys(model.label for one in scores for model in one.found.models):
        for number, one in enumerate(scores, 1):
            for model in one.found.models:
                if model.label == label:
                    texts = divergence_texts(model.divergence)
                    rows.append(cells((named(model), str(number), perplexity_text(model), *texts)))
    return table("Against the reference", ("", "run", "PPL", *DIVERGENCES), rows)


# ------------------------------------------------------------ CSV

_COLUMNS = (
    "snapshot", "model", "role", "figure", "percent", "tokens", "value", "error", "clustered_error",
)  # fmt: skip


def data_table(snapshots: Sequence[tuple[str, Snapshot]]) -> DataTable:
    """Return each figure against the reference for CSV.

    Column `percent` says which percentile a figure is. Column `tokens` is for a KLD by depth: the
    positions in a window over which it is the mean.
    """
    rows: list[tuple[str | float | None, ...]] = []
    for file, snapshot in snapshots:
        for model in snapshot.score.models if snapshot.score else ():
            key = (file, model.label, model.role)
            if model.perplexity is not None:
                rows.append((*key, "perplexity", None, None, *_errors(model.perplexity)))
            if model.divergence is not None:
                depths = snapshot.score.setting.depths if snapshot.score else []
                rows += [(*key, *row) for row in _data_rows(model.divergence, depths)]
    return DataTable(_COLUMNS, tuple(rows))


_DataRow = tuple[str, float | None, str | None, float | None, float | None, float | None]


def _data_rows(divergence: Divergence, depths: Sequence[int]) -> Iterator[_DataRow]:
    for name in ("log_ratio", "perplexity_difference", "kld_mean", "delta_p_mean", "delta_p_rms"):
        yield (name, None, None, *_errors(getattr(divergence, name)))
    yield ("top1_agreement", None, None, *_errors(divergence.top1_agreement))
    yield ("kld_max", None, None, divergence.kld_max, None, None)
    for name, percentiles in (
        ("kld", divergence.kld_percentiles),
        ("delta_p", divergence.delta_p_percentiles),
    ):
        for one in percentiles:
            yield (name, one.percent, None, *_errors(one.figure))
    for (first, last), part in zip(pairwise(depths), divergence.kld_by_depth, strict=False):
        yield ("kld_by_depth", None, f"{first + 1} to {last}", *_errors(part))


def _errors(quantity: Quantity) -> tuple[float, float | None, float | None]:
    return quantity.value, quantity.error, quantity.clustered
