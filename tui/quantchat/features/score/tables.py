"""A score as tables (Rich): each model against the reference, the pair, and what casts doubt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from rich.console import Group
from rich.table import Table
from rich.text import Text

from quantchat.document.figures import UNKNOWN, size
from quantchat.document.shared_tables import failures, new_table, notes, with_error
from quantchat.snapshot.score import ScoredRecord, ScoreRecord, SettingRecord
from quantchat.statistics.quality import Divergence, Percentile
from quantchat.text import one_line

_ROLES = {"reference": " reference", "floor": " floor", "variant": ""}

_DELTA_P_SHOWN = (1.0, 5.0, 50.0, 95.0, 99.0)
"""Percentiles of Δp that fit beside each other; a snapshot and a CSV file have more."""

ERRORS = (
    "PPL is perplexity; ± is one standard error, with tokens or with windows as units, whichever "
    "is wider; differences are paired by token."
)


def render(score: ScoreRecord) -> Group:
    """The whole score: what was read and how, the tables, the doubts."""
    return Group(
        *(Text(one) for one in facts(score)),
        *tables(score),
        *(Text(f"! {doubt}", style="yellow") for doubt in doubts(score)),
    )


def facts(score: ScoreRecord) -> list[str]:
    """What was read and how, and what the figures mean, a line each."""
    lines = [f"read {_read(score.setting)}", _windows(score.setting)]
    if score.storage is not None:
        kept = score.storage
        lines.append(
            f"the reference's forecasts were kept in {one_line(kept.form)} ({size(kept.bytes)}), at"
            f" a KLD of {kept.kld_mean:.1e} from what it said, {kept.kld_max:.1e} at most"
        )
    return [*lines, ERRORS]


def _read(setting: SettingRecord) -> str:
    return (
        f"{one_line(setting.text)} (SHA-256 {one_line(setting.text_sha256[:12])}): {setting.tokens}"
        f" tokens of tokenizer {one_line(setting.tokenizer_hash[:12])}, {setting.positions} scored"
    )


def _windows(setting: SettingRecord) -> str:
    begin = f"begun with {one_line(setting.begin)}" if setting.begin else "begun without a BOS"
    return (
        f"windows of {setting.window} tokens, a stride of {setting.stride}, the first"
        f" {setting.context} of each only read, {begin}"
    )


def doubts(score: ScoreRecord) -> list[str]:
    """What failed, what was not read, and what speaks against the figures, a line each."""
    lines = failures(score.models)
    if score.unread:
        lines.append(f"stopped before the end, not read: {one_line(', '.join(score.unread))}")
    for model in score.models:
        if model.role == "reference" and model.resolved:
            kernel = model.resolved.kernel
            if kernel != "not quantized":
                lines.append(f"the reference is itself quantized: {one_line(kernel)}")
    return lines + notes([model for model in score.models if model.role != "floor"])


def tables(score: ScoreRecord) -> Iterator[Table]:
    """Against the reference, the percentiles, and the pair in both directions."""
    yield reference_table(score)
    told = [(named(model), model.divergence) for model in score.models if model.divergence]
    if told:
        yield _percentiles("Percentiles of the KLD from the reference, nats", told, _klds)
        yield _percentiles("Percentiles of Δp of the token that came, %", told, _delta_ps)
    if score.pair:
        yield pair_table(score)


def reference_table(score: ScoreRecord) -> Table:
    """Each model against the reference."""
    table = new_table("Against the reference", "", "weights", "PPL", *DIVERGENCES)
    for model in score.models:
        cells = divergence_cells(model.divergence)
        table.add_row(named(model), size(model.weights), perplexity_cell(model), *cells)
    return table


def pair_table(score: ScoreRecord) -> Table:
    """The first two variants, each seen from the other."""
    table = new_table("The pair, each seen from the other", "", "seen from", *DIVERGENCES)
    table.columns[1].justify = "left"
    for one in score.pair:
        variant, other = Text(one_line(one.variant)), Text(one_line(one.seen_from))
        table.add_row(variant, other, *divergence_cells(one.divergence))
    return table


DIVERGENCES = ("PPL more", "KLD, nats", "RMS Δp, %", "same top, %")


def perplexity_cell(model: ScoredRecord) -> str:
    """Its perplexity, if it could read."""
    return with_error(model.perplexity, least=2) if model.perplexity else UNKNOWN


def divergence_cells(seen: Divergence | None) -> list[str]:
    """What `DIVERGENCES` head."""
    if seen is None:
        return [UNKNOWN] * len(DIVERGENCES)
    return [
        with_error(seen.perplexity_difference, signed=True),
        with_error(seen.kld_mean),
        with_error(seen.delta_p_rms, times=100),
        with_error(seen.same_top, times=100),
    ]


_Percentiles = Callable[[Divergence], list[tuple[str, str]]]


def _percentiles(
    title: str, told: Iterable[tuple[Text, Divergence]], cells_of: _Percentiles
) -> Table:
    rows = [(name, cells_of(seen)) for name, seen in told]
    table = new_table(title, "", *(head for head, _ in rows[0][1]))
    for name, cells in rows:
        table.add_row(name, *(cell for _, cell in cells))
    return table


def _klds(seen: Divergence) -> list[tuple[str, str]]:
    found = [(_head(one), with_error(one.figure)) for one in seen.kld_percentiles]
    return [*found, ("most", f"{seen.kld_max:.3g}")]


def _delta_ps(seen: Divergence) -> list[tuple[str, str]]:
    shown = [one for one in seen.delta_p_percentiles if one.percent in _DELTA_P_SHOWN]
    cells = [(_head(one), with_error(one.figure, times=100, signed=True)) for one in shown]
    return [("mean", with_error(seen.delta_p_mean, times=100, signed=True)), *cells]


def _head(one: Percentile) -> str:
    return f"{one.percent:g} %"


def named(model: ScoredRecord) -> Text:
    """Its label, and what it is where it is no variant."""
    return Text.assemble(one_line(model.label), (_ROLES[model.role], "dim"))
