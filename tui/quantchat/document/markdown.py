"""Documents as Markdown (GitHub's, with tables), with the plots in a folder beside the file.

No text of a document can become markup: `escaped` escapes the signs of Markdown in a line, and text
with line breaks is put into a code block, whose fence is longer than any run of backticks in the
text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote

from quantchat.document.document import (
    Answer,
    Cell,
    Document,
    Facts,
    PagePart,
    Paragraph,
    Plots,
    Table,
    Turn,
    Turns,
    Warnings,
)
from quantchat.document.drawing import picture_name
from quantchat.text import neutralise, one_line

OURS = b"<!-- a report by quantchat -->\n"
"""The first line of each report, by which an older report is recognised."""

_SIGNS = re.compile(r"[\\`*_{}\[\]<>#|~&!$@]|(?<=:)/|(?<=www)\.", re.IGNORECASE)
_AT_THE_START = re.compile(r"^(\d*)([-+=.)])(?=\s|$)")


def markdown(document: Document, folder: str) -> bytes:
    """Return `document` as Markdown in UTF-8, with links to its plots in `folder`."""
    return OURS + ("\n".join(_lines(document, folder)) + "\n").encode()


def escaped(text: str) -> str:
    """Return `text` on one line so that Markdown shows it as it is."""
    return _SIGNS.sub(r"\\\g<0>", one_line(text))


def fenced(text: str) -> str:
    """Return `text` as a code block that shows it as it is."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{neutralise(text)}\n{fence}"


def _lines(document: Document, folder: str) -> Iterator[str]:
    yield f"# {escaped(document.title)}"
    yield from _parts(document.overview, folder)
    for number, section in enumerate(document.sections, start=1):
        if section.title:
            yield f"\n## {f'{number}. ' if section.numbered else ''}{escaped(section.title)}"
        yield from _parts(section.parts, folder)


def _parts(parts: Iterable[PagePart], folder: str) -> Iterator[str]:
    for part in parts:
        if isinstance(part, Table):
            yield from _table(part)
        elif isinstance(part, Facts):
            yield from _list(part.lines)
        elif isinstance(part, Warnings):
            yield "\n### Warnings"
            yield from _list(part.lines)
        elif isinstance(part, Plots):
            yield from _plots(part, folder)
        elif isinstance(part, Turns):
            for turn in part.turns:
                yield from _turn(turn)
        elif isinstance(part, Paragraph):
            line = "".join(span.text for span in part.spans)
            yield f"\n{_at_the_start(escaped(line))}"
        else:
            yield f"\n{fenced(part.text)}"


def _plots(part: Plots, folder: str) -> Iterator[str]:
    for plot in part.plots:
        title, place = escaped(plot.title), quote(f"{folder}/{picture_name(plot)}")
        yield f"\n### {title}\n\n![{title}]({place})\n"
        yield escaped(plot.note)


def _turn(turn: Turn) -> Iterator[str]:
    yield f"\n### {': '.join(escaped(text) for text in (turn.title, turn.agreement) if text)}\n"
    yield fenced(turn.prompt)
    yield from _table(turn.figures)
    if turn.repeats:
        yield f"\nThe same answers, word for word, as in {escaped(turn.repeats)}."
    elif any(answer.differing is not None for answer in turn.answers):
        yield "\nThe first difference stands in ⟦ ⟧."
    for answer in turn.answers:
        if answer.thoughts:
            yield f"\n{escaped(answer.who)}, {escaped(answer.thoughts_title)}:\n"
            yield fenced(answer.thoughts)
        yield f"\n{escaped(answer.who)}:\n"
        yield fenced(_marked(answer))


def _marked(answer: Answer) -> str:
    differing = "" if answer.differing is None else f"⟦{answer.differing}⟧"
    return f"{answer.before}{differing}{answer.after}"


def _list(lines: Iterable[str]) -> Iterator[str]:
    yield ""
    yield from (f"- {_at_the_start(escaped(line))}" for line in lines)


def _at_the_start(line: str) -> str:
    """Return the escaped `line` so that it begins no list and underlines no heading."""
    return _AT_THE_START.sub(r"\1\\\2", line)


def _table(table: Table) -> Iterator[str]:
    yield f"\n### {escaped(table.title)}\n" if table.title else ""
    yield _row(escaped(column.heading + column.heading_end) for column in table.columns)
    yield _row("--:" if column.right else "---" for column in table.columns)
    yield from (_row(map(_cell, row)) for row in table.rows)


def _cell(cell: Cell) -> str:
    return escaped(f"{cell.text} ({cell.aside})" if cell.aside else cell.text)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
