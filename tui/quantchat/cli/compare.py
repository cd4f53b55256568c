"""`quantchat compare`: several runs in one table, and gates that can fail a build."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

import click

from quantchat.console.gates import GateOptions, gate_options

if TYPE_CHECKING:
    from quantchat.document.document import Block
    from quantchat.report.compared_snapshots import ResultKind
    from quantchat.snapshot.figures import Kind
    from quantchat.snapshot.schema import Snapshot

    _Saved = Sequence[tuple[str, Snapshot]]


class _CompareCommand(click.Command):
    """A command whose help lists the names of the figures that a gate can use.

    The module that knows these names is imported only when the help is shown, so that the command
    itself starts fast.
    """

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help with the names of all figures in place of each `…`."""
        from quantchat.snapshot.figures import kinds

        text = self.help
        heads = {"run": "Figures: ", "score": "  score: ", "eval": "  eval: ", "load": "  load: "}
        for kind, head in heads.items():
            names = ", ".join(name for name, its in kinds().items() if its == kind)
            lines = wrap(f"{head}{names}", 78, subsequent_indent=" " * len(head))
            self.help = str(self.help).replace(f"{head}…", "\n".join(lines))
        super().format_help_text(ctx, formatter)
        self.help = text


@click.command(cls=_CompareCommand)
@click.argument("snapshots", nargs=-1, required=True, metavar="SNAPSHOT…")
@gate_options
@click.option("--force", is_flag=True, help="Compare runs even if they are not comparable.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, nothing else.")
@click.pass_obj
def compare(
    obj: Path | None,
    snapshots: tuple[str, ...],
    gates: GateOptions,
    force: bool,
    as_json: bool,
) -> int:
    """Compare several runs in one table, and check conditions on their figures.

    SNAPSHOT is a name from `quantchat snapshots`, the beginning of a name, a file, or `latest`.

    Each run has two columns, left and right: a and b for the first run, c and d for the second, and
    so on. In each run, the right column is compared with the left one. Each variant is also
    compared with the variant of the same label in the earliest run that has this label, paired by
    prompt and round. If order, model, checkpoint or token counts differ between runs, nothing is
    compared and the exit status is 2.

    \b
    A GATE is a condition on numbers and on figures of columns:
      quantchat compare new.json --fail-if 'b.decode_tps < 0.95 * a.decode_tps'
      quantchat compare old.json new.json --fail-if 'd.ttft_ms > b.ttft_ms + 20'
      quantchat compare score.json --fail-unless 'b.kld < 0.05'
    Operators: + - * / ( ) and one of < <= > >=
    Figures: …
      score: …
      eval: …
      load: …

    The condition is true if it holds in the whole 95 % interval, false if it holds nowhere in the
    interval, and otherwise undecided. --fail-if fails (exit status 1) if the condition is true,
    --fail-unless if it is false. If a gate is undecided, the exit status is 2, and the output says
    how many prompts, rounds, tokens or questions would decide it. If the gate compares the same
    figure of two columns, the interval is that of their ratio, over prompts and rounds. Weights and
    GPU memory are compared as exact values. A gate on a figure that was measured only once is
    undecided. So is a gate on process_bytes on a CPU, because resident memory differs between
    processes of the same variant.

    Votes from several sessions of `quantchat vote` on the same two variants are added up.

    Snapshots of `quantchat score` are shown side by side, unless text, windows, BOS, tokenizer,
    token count or reference differ. So are snapshots of `quantchat eval`, unless tasks, their
    questions or examples, or the harness differ, and snapshots of `quantchat load`, unless load
    levels or token counts differ. In gates on these, the columns a, b, … are the variants of all
    snapshots in order; in gates on scores, `ref` is the reference.
    """  # noqa: D301  # \\b keeps click from wrapping what follows
    from quantchat import paths
    from quantchat.errors import UserError
    from quantchat.report import compared_snapshots
    from quantchat.snapshot import store
    from quantchat.snapshot.lookup import find_snapshot

    files = [find_snapshot(obj or paths.snapshots_dir(), name) for name in snapshots]
    saved = [(str(file), store.load(file)) for file in files]
    kind = compared_snapshots.kind_of(saved)
    if kind == "runs":
        return _compare_runs(saved, gates, force=force, as_json=as_json)
    if kind != "votes":
        return _compare_results(saved, kind, gates, force=force, as_json=as_json)
    if gates.conditions:
        raise UserError("votes have no gates", where=" ".join(gates.conditions[0]))
    return _pool_votes(saved, as_json=as_json)


def _compare_runs(saved: _Saved, gates: GateOptions, *, force: bool, as_json: bool) -> int:
    from quantchat.report import comparison as report
    from quantchat.snapshot.compare import compare_runs
    from quantchat.snapshot.compared_sides import Run

    result = compare_runs([Run(*one) for one in saved], force=force)
    verdicts = gates.judge("run", [snapshot for _, snapshot in saved])
    _print(report.json_document(result, verdicts) if as_json else report.blocks(result, verdicts))
    return gates.finish(_title(saved), verdicts)


def _compare_results(
    saved: _Saved,
    kind: ResultKind,
    gates: GateOptions,
    *,
    force: bool,
    as_json: bool,
) -> int:
    """Print the results of `kind` and the verdicts on them; return the exit status."""
    from quantchat.document.verdicts import as_json as verdict_json
    from quantchat.document.verdicts import line
    from quantchat.report import compared_snapshots

    body = compared_snapshots.json_document(saved, kind, force=force) if as_json else {}
    blocks = [] if as_json else compared_snapshots.blocks(saved, force=force)
    commands: dict[ResultKind, Kind] = {
        "scores": "score",
        "evaluations": "eval",
        "load tests": "load",
    }
    verdicts = gates.judge(commands[kind], [snapshot for _, snapshot in saved])
    if as_json:
        _print({**body, "gates": [verdict_json(one) for one in verdicts]})
    else:
        _print([*blocks, *map(line, verdicts)])
    return gates.finish(_title(saved), verdicts)


def _title(saved: _Saved) -> str:
    return "quantchat compare " + " ".join(Path(file).name for file, _ in saved)


def _pool_votes(saved: _Saved, *, as_json: bool) -> int:
    """Add up the sessions of blind votes and print the result.

    Raises UserError if the sessions are not on the same two variants.
    """
    from quantchat.features.votes import tables as report
    from quantchat.snapshot.pooled_votes import pool_votes

    result = pool_votes(saved)
    _print(report.json_document(result) if as_json else report.pooled_blocks(result))
    return 0


def _print(result: dict[str, object] | list[Block]) -> None:
    """Print `result`: a dict as a JSON document, a list of blocks as text and tables."""
    from quantchat.console.console import show

    if isinstance(result, dict):
        # In ASCII, JSON escapes the control characters in a model's text.
        sys.stdout.write(json.dumps(result, ensure_ascii=True, allow_nan=False) + "\n")
    else:
        show(result)
