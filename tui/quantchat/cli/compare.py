"""`quantchat compare`: several runs in one table, and gates that can fail a build."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from quantchat.document.document import Block
    from quantchat.snapshot.schema import Snapshot

    _Saved = Sequence[tuple[str, Snapshot]]

_GATE_FAILED = 1
_GATE_UNDECIDED = 2


class _CompareCommand(click.Command):
    """A command whose help names the figures. They are read when the help is, to start fast."""

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help with the names of `snapshot.figures.FIGURES`."""
        from quantchat.snapshot.figures import FIGURES

        names = ", ".join(figure.name for figure in FIGURES)
        lines = wrap(f"Figures: {names}", 78, subsequent_indent=" " * len("Figures: "))
        text = self.help
        self.help = str(text).replace("Figures: …", "\n".join(lines))
        super().format_help_text(ctx, formatter)
        self.help = text


@click.command(cls=_CompareCommand)
@click.argument("snapshots", nargs=-1, required=True, metavar="SNAPSHOT…")
@click.option(
    "--fail-if",
    "conditions",
    multiple=True,
    metavar="GATE",
    help="Exit 1 if GATE holds on the whole 95 % interval; may be repeated.",
)
@click.option("--force", is_flag=True, help="Compare runs even if they are not comparable.")
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

    Each run has two columns, left and right: a and b for the first run, c and d for the second, and
    so on. Right is compared with left in each run, and each variant with the variant of the same
    label in the first run that has one, paired by prompt and round. Refused (exit 2) if order,
    model, checkpoint or token counts differ between runs.

    \b
    A GATE compares sums and products of numbers and figures of columns:
      quantchat compare new.json --fail-if 'b.decode_tps < 0.95 * a.decode_tps'
      quantchat compare old.json new.json --fail-if 'd.ttft_ms > b.ttft_ms + 20'
    Signs: + - * / ( ) and one of < <= > >=
    Figures: …

    A gate fails, and the exit status is 1, only if it holds on the whole 95 % interval. That is the
    interval of the ratio if the gate compares one figure of two columns, otherwise of left minus
    right, bootstrapped over prompts and rounds. If only the mean meets the gate, it is "not shown"
    and does not fail. Weights and GPU memory are compared without an interval. A gate that cannot
    be decided makes the exit status 2: a figure measured only once, and process_bytes on a CPU,
    where resident memory differs between processes.

    Sessions of `quantchat vote` on the same two variants are counted together.

    Snapshots of `quantchat score` are shown side by side, without gates. Refused if text, windows,
    BOS, tokenizer, token count or reference differ. So are those of `quantchat eval`, refused if
    tasks, their documents or examples, or the harness differ.
    """  # noqa: D301  # \\b keeps click from wrapping what follows
    from quantchat import paths
    from quantchat.snapshot import store
    from quantchat.snapshot.lookup import find_snapshot

    files = [find_snapshot(obj or paths.snapshots_dir(), name) for name in snapshots]
    saved = [(str(file), store.load(file)) for file in files]
    if all(snapshot.score and not snapshot.measurement for _, snapshot in saved):
        _refuse_gates("scores", conditions)
        return _compare_scores(saved, force=force, as_json=as_json)
    if all(snapshot.evaluation and not snapshot.measurement for _, snapshot in saved):
        _refuse_gates("evaluations", conditions)
        return _compare_evaluations(saved, force=force, as_json=as_json)
    if any(snapshot.voting and not snapshot.measurement for _, snapshot in saved):
        _refuse_gates("votes", conditions)
        return _pool_votes(saved, as_json=as_json)
    return _compare_runs(saved, conditions, force=force, as_json=as_json)


def _compare_runs(saved: _Saved, conditions: Sequence[str], *, force: bool, as_json: bool) -> int:
    from quantchat.report import comparison as report
    from quantchat.snapshot.compare import compare_runs
    from quantchat.snapshot.compared_sides import Run
    from quantchat.snapshot.expression import parse
    from quantchat.snapshot.gates import judge

    result = compare_runs([Run(*one) for one in saved], force=force)
    letters = [column.letter for column in result.columns]
    gates = [parse(condition, letters) for condition in conditions]
    verdicts = [judge(gate, result.columns) for gate in gates]
    _print(report.json_document(result, verdicts) if as_json else report.blocks(result, verdicts))
    statuses = {verdict.status for verdict in verdicts}
    if "failed" in statuses:
        return _GATE_FAILED
    return _GATE_UNDECIDED if "undecided" in statuses else 0


def _compare_scores(saved: _Saved, *, force: bool, as_json: bool) -> int:
    from quantchat.document.model_results import Result, json_document
    from quantchat.features.score import tables as report
    from quantchat.snapshot.run_diff import unless_forced
    from quantchat.snapshot.score import obstacles

    scores = [Result(file, one, one.score) for file, one in saved if one.score]
    against = unless_forced(obstacles([one.found for one in scores]), force=force)
    _print(json_document(scores, against, "score") if as_json else report.several(scores, against))
    return 0


def _compare_evaluations(saved: _Saved, *, force: bool, as_json: bool) -> int:
    from quantchat.document.model_results import Result, json_document
    from quantchat.features.tasks import tables as report
    from quantchat.snapshot.evaluation import obstacles
    from quantchat.snapshot.run_diff import unless_forced

    runs = [Result(file, one, one.evaluation) for file, one in saved if one.evaluation]
    against = unless_forced(obstacles([one.found for one in runs]), force=force)
    _print(json_document(runs, against, "evaluation") if as_json else report.several(runs, against))
    return 0


def _pool_votes(saved: _Saved, *, as_json: bool) -> int:
    """Count sessions of blind votes together. Raises UserError if they do not fit together."""
    from quantchat.features.votes import tables as report
    from quantchat.snapshot.votes import pooled

    result = pooled(saved)
    _print(report.json_document(result) if as_json else report.pooled_blocks(result))
    return 0


def _refuse_gates(kind: str, conditions: Sequence[str]) -> None:
    from quantchat.errors import UserError

    if conditions:
        raise UserError(f"{kind} have no gates: --fail-if is for runs", where=conditions[0])


def _print(result: dict[str, object] | list[Block]) -> None:
    """Print a JSON document, or parts of a document."""
    from quantchat.console.console import show

    if isinstance(result, dict):
        # Pure ASCII: raw text in it does nothing to a terminal.
        sys.stdout.write(json.dumps(result, ensure_ascii=True, allow_nan=False) + "\n")
    else:
        show(result)
