"""The command-line options for gates, the exit status that gates decide, and files for CI systems.

A gate is a condition on measured figures, such as `b.tpot_ms < 1.05 * a.tpot_ms`. A command fails
if the condition holds (`--fail-if`) or does not hold (`--fail-unless`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from quantchat.snapshot.expression import Gate, Option
    from quantchat.snapshot.figures import Kind
    from quantchat.snapshot.schema import Snapshot
    from quantchat.snapshot.verdicts import Verdict

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class GateOptions:
    """The gates of a command as the user typed them, and the files for their verdicts.

    `conditions` has the option and the condition of each gate. `junit` and `summary` are the files
    of these options, None if the option is not used.
    """

    conditions: tuple[tuple[Option, str], ...]
    junit: Path | None
    summary: Path | None

    def parse(self, columns: Sequence[str], kind: Kind = "run") -> list[Gate]:
        """Parse the conditions and return the gates. Raises UserError.

        A condition may use the names in `columns` (`a`, `b`, …), which stand for the compared
        variants, and the figures that snapshots of the kind `kind` have.
        """
        from quantchat.snapshot.expression import parse

        self.check_files()
        return [parse(text, columns, option, kind) for option, text in self.conditions]

    def check_files(self) -> None:
        """Raise UsageError or UserError if the files cannot be written.

        Call this before the measurement, which may take hours.
        """
        from quantchat.errors import UserError
        from quantchat.files import is_folder
        from quantchat.text import one_line

        for name, path in (("--junit", self.junit), ("--summary", self.summary)):
            if path is None:
                continue
            if not self.conditions:
                raise click.UsageError(f"{name} writes verdicts: add --fail-if or --fail-unless")
            if not is_folder(path.parent):
                raise UserError("no such folder", where=one_line(str(path.parent)))

    def judge(self, kind: Kind, snapshots: Sequence[Snapshot]) -> list[Verdict]:
        """Return the verdict of each gate on `snapshots` of the kind `kind`. Raises UserError."""
        from quantchat.snapshot.compared_sides import Run, column_letter, columns
        from quantchat.snapshot.gates import judge
        from quantchat.snapshot.quality_gates import judge_quality, quality_columns

        if kind == "run":
            sides = columns([Run("", snapshot) for snapshot in snapshots])
            return [judge(gate, sides) for gate in self.parse([one.letter for one in sides])]
        models = quality_columns(kind, snapshots, column_letter)
        gates = self.parse([one.letter for one in models], kind)
        return [judge_quality(gate, models) for gate in gates]

    def parse_early(self, labels: Sequence[str], kind: Kind = "run") -> None:
        """Raise UserError if a gate on figures of the variants with `labels` has an error.

        Call this before the measurement, which may take hours.
        """
        from quantchat.snapshot.compared_sides import column_letter
        from quantchat.snapshot.quality_gates import REFERENCE

        columns = [column_letter(index) for index in range(len(labels))]
        self.parse(columns if kind == "run" else [*columns, REFERENCE], kind)

    def judge_and_print(self, kind: Kind, snapshot: Snapshot, *, as_json: bool) -> int:
        """Judge and print the gates on `snapshot`; return the exit status. Raises UserError.

        With `as_json` the verdicts go to stderr, because stdout contains only the snapshot.
        """
        from quantchat.console.console import show
        from quantchat.document.verdicts import line

        if not self.conditions:
            return 0
        verdicts = self.judge(kind, [snapshot])
        show(map(line, verdicts), stderr=as_json)
        return self.finish(f"quantchat {kind}: {snapshot.name}", verdicts)

    def finish(self, title: str, verdicts: Sequence[Verdict]) -> int:
        """Write the verdicts to the files of `--junit` and `--summary`; return the exit status.

        `title` is the heading in the files. The status is 1 if a gate failed, else 2 if one is
        undecided, else 0. Raises UserError.
        """
        from quantchat.document.verdicts import junit, summary
        from quantchat.errors import UserError
        from quantchat.files import write_whole
        from quantchat.snapshot.verdicts import exit_status
        from quantchat.text import one_line

        path = self.junit
        try:
            if self.junit is not None:
                write_whole(self.junit, junit(title, verdicts))
            if (path := self.summary) is not None:
                with path.open("a", encoding="utf-8") as file:
                    file.write(summary(title, verdicts))
        except OSError as error:
            reason = error.strerror or error
            where = one_line(str(path))
            raise UserError(f"cannot be written: {reason}", where=where) from error
        return exit_status(verdicts)


def gate_options(command: _Command) -> _Command:
    """Add `--fail-if`, `--fail-unless`, `--junit` and `--summary`, passed together as `gates`."""

    @functools.wraps(command)
    def with_gates(
        *args: Any,
        fail_if: tuple[str, ...],
        fail_unless: tuple[str, ...],
        junit: Path | None,
        summary: Path | None,
        **more: Any,
    ) -> Any:
        conditions: list[tuple[Option, str]] = [("--fail-if", text) for text in fail_if]
        conditions += [("--fail-unless", text) for text in fail_unless]
        return command(*args, gates=GateOptions(tuple(conditions), junit, summary), **more)

    file = click.Path(dir_okay=False, path_type=Path)
    options = (
        click.option(
            "--fail-if",
            multiple=True,
            metavar="GATE",
            help="Exit 1 if the condition GATE, such as 'b.tpot_ms > 1.05 * a.tpot_ms', holds in "
            "the whole 95 % interval, and 2 if it holds in a part of it. May be repeated.",
        ),
        click.option(
            "--fail-unless",
            multiple=True,
            metavar="GATE",
            help="Exit 1 if the condition GATE, such as 'b.tpot_ms < 1.05 * a.tpot_ms', is false "
            "in the whole 95 % interval, and 2 if it is false in a part of it. May be repeated.",
        ),
        click.option("--junit", type=file, metavar="FILE", help="Write the verdicts as JUnit XML."),
        click.option(
            "--summary", type=file, metavar="FILE", help="Append the verdicts as Markdown."
        ),
    )
    wrapped: Any = with_gates
    for option in reversed(options):
        wrapped = option(wrapped)
    result: _Command = wrapped
    return result
