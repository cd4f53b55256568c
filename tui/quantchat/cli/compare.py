"""`quantchat compare`: several runs in one table, and gates that fail a build."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from quantchat.snapshot.compare import RunsCompared
    from quantchat.snapshot.gates import Verdict
    from quantchat.snapshot.schema import Snapshot

_GATE_FAILED = 1
_GATE_UNDECIDED = 2


@click.command()
@click.argument("snapshots", nargs=-1, required=True, metavar="SNAPSHOT…")
@click.option(
    "--fail-if",
    "conditions",
    multiple=True,
    metavar="GATE",
    help="Exit 1 if this is so, beyond doubt; may be repeated.",
)
@click.option("--force", is_flag=True, help="Compare also what is not comparable.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, nothing else.")
@click.pass_obj
def compare(
    obj: Path | None,
    snapshots: tuple[str, ...],
    conditions: tuple[str, ...],
    force: bool,
    as_json: bool,
) -> int:
    """Compare the runs in SNAPSHOT…, names of `quantchat snapshots`, their beginnings, or files.

    Each run has two columns, left and right: of the first run a and b, of the second c and d, and
    so on. Right is compared with left in each run, and each variant with the first run that has one
    of the same label, paired by prompt and round. Refused (exit 2) where order, model, checkpoint
    or token counts differ between runs.

    \b
    A GATE compares sums and products of numbers and figures of columns:
      quantchat compare new.json --fail-if 'b.decode_tps < 0.95 * a.decode_tps'
      quantchat compare old.json new.json --fail-if 'd.ttft_ms > b.ttft_ms + 20'
    Signs: + - * / ( ) and one of < <= > >=
    Figures: ttft_ms, tpot_ms, decode_tps, end_to_end_ms,
             j_per_token, weights_bytes, process_bytes

    A gate fails, and the exit status is 1, only if it is met on the whole 95 % interval: of the
    ratio where it is one figure in two columns, otherwise of left minus right, bootstrapped over
    prompts and rounds. Met by the mean but not by the whole interval is "not shown" and does not
    fail. Memory is no sample: weights and what a GPU holds are taken as they stand. A gate that
    cannot be decided makes the exit status 2: what was measured only once, and process_bytes on a
    CPU, where resident memory differs from process to process.

    Sessions of `quantchat vote` on the same two variants are counted together.

    Snapshots of `quantchat score` are laid side by side, without gates. Refused where text,
    windows, BOS, tokenizer, token count or reference differ. So are those of `quantchat eval`:
    refused where tasks, their documents or examples, or the harness differ.
    """  # noqa: D301  # \\b keeps click from wrapping what follows
    from quantchat import paths
    from quantchat.cli.snapshots import found
    from quantchat.snapshot import store
    from quantchat.snapshot.columns import Run
    from quantchat.snapshot.compare import compare_runs
    from quantchat.snapshot.expression import parse
    from quantchat.snapshot.gates import judge

    files = [found(obj or paths.snapshots_dir(), name) for name in snapshots]
    saved = [(str(file), store.load(file)) for file in files]
    if all(snapshot.score and not snapshot.measurement for _, snapshot in saved):
        _compare_scores(saved, conditions, force=force, as_json=as_json)
        return 0
    if all(snapshot.evaluation and not snapshot.measurement for _, snapshot in saved):
        _compare_evaluations(saved, conditions, force=force, as_json=as_json)
        return 0
    if any(snapshot.voting and not snapshot.measurement for _, snapshot in saved):
        _pool_votes(saved, conditions, as_json=as_json)
        return 0
    runs = [Run(*one) for one in saved]
    result = compare_runs(runs, force=force)
    letters = [column.letter for column in result.columns]
    gates = [parse(condition, letters) for condition in conditions]
    verdicts = [judge(gate, result.columns) for gate in gates]
    _print(result, verdicts, as_json=as_json)
    statuses = {verdict.status for verdict in verdicts}
    if "failed" in statuses:
        return _GATE_FAILED
    return _GATE_UNDECIDED if "undecided" in statuses else 0


def _compare_scores(
    saved: Sequence[tuple[str, Snapshot]],
    conditions: Sequence[str],
    *,
    force: bool,
    as_json: bool,
) -> None:
    """Lay scores side by side. Raises UserError where that cannot be."""
    from quantchat.errors import UserError
    from quantchat.report import scores as report
    from quantchat.snapshot.score import obstacles
    from quantchat.snapshot.setups import NotComparable

    if conditions:
        raise UserError("scores have no gates: --fail-if is for runs", where=conditions[0])
    scores = [report.Scored(file, one, one.score) for file, one in saved if one.score]
    against = obstacles([one.score for one in scores])
    if against and not force:
        raise NotComparable(against)
    if as_json:
        _print_json(report.document(scores, against))
    else:
        from quantchat.cli.console import console

        console().print(report.render(scores, against))


def _compare_evaluations(
    saved: Sequence[tuple[str, Snapshot]],
    conditions: Sequence[str],
    *,
    force: bool,
    as_json: bool,
) -> None:
    """Lay evaluations side by side. Raises UserError where that cannot be."""
    from quantchat.cli.console import console
    from quantchat.errors import UserError
    from quantchat.report import evaluation as report
    from quantchat.snapshot.evaluation import obstacles
    from quantchat.snapshot.setups import NotComparable

    if conditions:
        raise UserError("evaluations have no gates: --fail-if is for runs", where=conditions[0])
    runs = [report.Evaluated(file, one, one.evaluation) for file, one in saved if one.evaluation]
    against = obstacles([one.found for one in runs])
    if against and not force:
        raise NotComparable(against)
    if as_json:
        _print_json(report.document(runs, against))
    else:
        console().print(report.render_several(runs, against))


def _print(result: RunsCompared, verdicts: Sequence[Verdict], *, as_json: bool) -> None:
    from quantchat.cli.console import console
    from quantchat.report import comparison

    if as_json:
        _print_json(comparison.document(result, verdicts))
    else:
        console().print(comparison.render(result, verdicts))


def _print_json(body: dict[str, Any]) -> None:
    # Pure ASCII: raw text of a profile in it does nothing to a terminal.
    sys.stdout.write(json.dumps(body, ensure_ascii=True, allow_nan=False) + "\n")


def _pool_votes(
    saved: Sequence[tuple[str, Snapshot]], conditions: Sequence[str], *, as_json: bool
) -> None:
    """Count sessions of blind votes together. Raises UserError where that cannot be."""
    from quantchat.cli.console import console
    from quantchat.errors import UserError
    from quantchat.report import votes
    from quantchat.snapshot.votes import pooled

    if conditions:
        raise UserError("votes have no gates: --fail-if is for runs", where=conditions[0])
    result = pooled(saved)
    if as_json:
        _print_json(votes.document(result))
    else:
        console().print(votes.render_pooled(result))
