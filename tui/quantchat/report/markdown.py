"""A report as Markdown (GitHub's, with tables), its plots in a folder beside it.

Nothing that a snapshot holds is markup: on a line each sign that could begin any is escaped, and
what goes over several lines stands in a fence longer than all its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import quote

from quantchat.report.page_answers import Said, ToldTurn
from quantchat.report.page_content import Report, Section
from quantchat.report.page_tables import Cell, Grid
from quantchat.report.pictures import picture_name

OURS = b"<!-- a report by quantchat -->\n"
"""The first line of each report."""

_SIGNS = re.compile(r"[\\`*_{}\[\]<>#|~&!$@]|(?<=:)/|(?<=www)\.", re.IGNORECASE)
_AT_THE_START = re.compile(r"^(\d*)([-+=.)])(?=\s|$)")


def markdown(report: Report, folder: str) -> bytes:
    """Return `report` as Markdown, UTF-8, that shows `pictures(report)` from `folder`."""
    return OURS + ("\n".join(_lines(report, folder)) + "\n").encode()


def escaped(text: str) -> str:
    """`text`, neutral and within a line, so that Markdown shows it as it stands."""
    return _SIGNS.sub(r"\\\g<0>", text)


def fenced(text: str) -> str:
    """`text`, neutral, as a block that shows it as it stands."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"


def _lines(report: Report, folder: str) -> Iterator[str]:
    yield f"# {escaped(report.title)}"
    for table in report.overview:
        yield from _table(table)
    yield from _doubts(report.doubts)
    for number, section in enumerate(report.sections, start=1):
        if report.overview:
            yield f"\n## {number}. {escaped(section.title)}"
        yield from _section(report, section, folder)


def _section(report: Report, section: Section, folder: str) -> Iterator[str]:
    yield from _list([section.file, *section.facts])
    for table in section.results:
        yield from _table(table)
    yield from _list(section.said)
    yield from _doubts(section.doubts)
    for plot in section.plots:
        place = quote(f"{folder}/{picture_name(report, section, plot)}")
        yield f"\n### {escaped(plot.title)}\n"
        yield f"![{escaped(plot.title)}]({place})\n"
        yield escaped(plot.note)
    for table in section.ran:
        yield from _table(table)
    for turn in section.turns:
        yield from _turn(turn)


def _turn(turn: ToldTurn) -> Iterator[str]:
    yield f"\n### {': '.join(escaped(text) for text in (turn.title, turn.agreement) if text)}\n"
    yield fenced(turn.prompt)
    yield from _table(turn.figures)
    if turn.repeats:
        yield f"\nThe same answers, word for word, as in {escaped(turn.repeats)}."
    elif any(said.differing is not None for said in turn.answers):
        yield "\nThe first difference stands in ⟦ ⟧."
    for said in turn.answers:
        if said.thoughts:
            yield f"\n{escaped(said.who)}, {said.thinking}:\n"
            yield fenced(said.thoughts)
        yield f"\n{escaped(said.who)}:\n"
        yield fenced(_marked(said))


def _marked(said: Said) -> str:
    differing = "" if said.differing is None else f"⟦{said.differing}⟧"
    return f"{said.before}{differing}{said.after}"


def _doubts(lines: list[str]) -> Iterator[str]:
    if lines:
        yield "\n### Doubts"
        yield from _list(lines)


def _list(lines: list[str]) -> Iterator[str]:
    if lines:
        yield ""
        yield from (f"- {_item(line)}" for line in lines)


def _item(line: str) -> str:
    return _AT_THE_START.sub(r"\1\\\2", escaped(line))


def _table(table: Grid) -> Iterator[str]:
    yield f"\n### {escaped(table.title)}\n" if table.title else ""
    yield _row(map(escaped, table.columns))
    yield _row("--:" if right else "---" for right in table.right)
    yield from (_row(map(_cell, row)) for row in table.rows)


def _cell(cell: Cell) -> str:
    return escaped(f"{cell.text} ({cell.aside})" if cell.aside else cell.text)


def _row(cells: Iterator[str]) -> str:
    return f"| {' | '.join(cells)} |"
