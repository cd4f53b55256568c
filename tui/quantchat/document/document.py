"""A document without a format: tables, paragraphs, plots, answers. Renderers choose the format.

Features and reports build these parts. `terminal`, `html`, `markdown` and `csv_file` render them.
Text in a part is raw, as a model or a file gave it: each renderer replaces control characters and
escapes what its format would take for markup.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Role = Literal["plain", "heading", "quiet", "good", "warning", "bad", "grave"]
"""What a piece of text means to its reader. `grave` is worse than `bad`."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class Span:
    """A piece of a line, and its role."""

    text: str
    role: Role = "plain"


@dataclass(frozen=True)
class Paragraph:
    """One line of text, which may wrap."""

    spans: tuple[Span, ...]
    indent: int = 0
    """Columns of indentation."""
    wrap: bool = True
    """False for text that a reader copies, such as a file's name; it is never broken."""


@dataclass(frozen=True)
class Verbatim:
    """Text with line breaks of its own, such as an answer."""

    text: str
    role: Role = "plain"


@dataclass(frozen=True)
class Facts:
    """A list of statements, one on a line."""

    lines: tuple[str, ...]


@dataclass(frozen=True)
class Warnings:
    """Reasons to doubt the figures, or failures, one on a line."""

    lines: tuple[str, ...]
    role: Role = "warning"
    indent: int = 0
    """Columns of indentation."""


@dataclass(frozen=True)
class Cell:
    """One cell of a table, on one line."""

    text: str
    aside: str = ""
    """A remark on `text`, shown less prominently, such as how a figure was measured."""
    role: Role = "plain"
    indent: int = 0
    """Columns of indentation, for the name of a row that is a part of the row above."""
    link: str = ""
    """The anchor of the section that the cell links to; empty for a cell without a link."""


@dataclass(frozen=True)
class Column:
    """The heading and footer of a column, and the layout of its cells."""

    heading: str = ""
    right: bool = False
    """Whether the cells are right-aligned, as for figures."""
    role: Role = "plain"
    wrap: bool = True
    heading_end: str = ""
    """The end of the heading. A terminal puts it on a second line, to save width."""
    footer: str = ""


@dataclass(frozen=True)
class Table:
    """A table. The first column names the rows. If no column has a heading, no header is shown."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    groups: frozenset[int] = frozenset()
    """Indices of the rows, from 0, above which a terminal leaves a gap."""
    compact: bool = False
    """Whether a terminal saves width, for names that a reader types again."""


@dataclass(frozen=True)
class Plot:
    """A plot: what it shows, how to read it, and how Matplotlib draws it."""

    name: str
    """The name of the plot's file, without the ending."""
    title: str
    note: str
    draw: Callable[[Figure], None]
    height: float = 1.0
    """Relative to the default height."""


@dataclass(frozen=True)
class Answer:
    """One answer, split at the token at which it diverges from the other answer."""

    place: int
    """The variant's position in the snapshot, from 0. It decides the colour."""
    who: str
    """The variant's name for the reader."""
    before: str
    differing: str | None
    """The first token that differs; empty if the answer ends there, None without a divergence."""
    after: str
    thoughts: str = ""
    thoughts_title: str = ""


@dataclass(frozen=True)
class Turn:
    """One prompt and its answers."""

    title: str
    speeds: str
    """The decode throughput of each answer, in one line."""
    agreement: str
    """Where the answers diverge, or that they do not; empty without two answers."""
    prompt: str
    figures: Table
    answers: tuple[Answer, ...]
    repeats: str = ""
    """The title of an earlier turn with the same prompt and answers. Then `answers` is empty. An
    empty string if there is no such turn."""


@dataclass(frozen=True)
class Plots:
    """Plots that stand side by side where there is room."""

    plots: tuple[Plot, ...]


@dataclass(frozen=True)
class Turns:
    """Turns. An HTML page shows the first one open, and the others folded."""

    turns: tuple[Turn, ...]


Block = Paragraph | Verbatim | Facts | Warnings | Table
"""The parts that every renderer shows."""

PagePart = Block | Plots | Turns
"""The parts that an HTML page and Markdown show."""


@dataclass(frozen=True)
class Section:
    """A part of a document with a heading of its own."""

    anchor: str
    title: str
    """Empty in a document with a single section, which has the document's title."""
    parts: tuple[PagePart, ...]
    numbered: bool = True
    """Whether its title begins with its number."""


@dataclass(frozen=True)
class Document:
    """A title, an overview of the sections, and the sections."""

    title: str
    overview: tuple[Block, ...]
    sections: tuple[Section, ...]

    def plots(self) -> Iterator[Plot]:
        """Yield every plot, in reading order."""
        for section in self.sections:
            for part in section.parts:
                if isinstance(part, Plots):
                    yield from part.plots


@dataclass(frozen=True)
class DataTable:
    """Rows of raw values for programs: text, numbers, and None for "not known"."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | None, ...], ...]


# ------------------------------------------------------------ short ways to build parts

Words = str | tuple[str, Role]

BLANK = Paragraph(())
"""An empty line, which only a terminal shows."""


def paragraph(*words: Words, indent: int = 0) -> Paragraph:
    """Return a paragraph of `words`, each plain or with a role."""
    return Paragraph(tuple(Span(*([w] if isinstance(w, str) else w)) for w in words), indent)


def paragraphs(lines: Iterable[str]) -> list[Block]:
    """Return a plain paragraph for each of `lines`."""
    return [paragraph(line) for line in lines]


def warnings(lines: Iterable[str], role: Role = "warning", indent: int = 0) -> list[Block]:
    """Return `lines` as warnings; an empty list if there are none."""
    found = tuple(lines)
    return [Warnings(found, role, indent)] if found else []


def cells(texts: Iterable[str | Cell]) -> tuple[Cell, ...]:
    """Return a row of cells, each from its text."""
    return tuple(text if isinstance(text, Cell) else Cell(text) for text in texts)


def table(
    title: str, headings: Sequence[str | Column], rows: Iterable[Iterable[str | Cell]]
) -> Table:
    """Return a table; a heading given as text is right-aligned, except for the first."""
    columns = tuple(
        heading if isinstance(heading, Column) else Column(heading, right=place > 0)
        for place, heading in enumerate(headings)
    )
    return Table(title, columns, tuple(map(cells, rows)))


Row = tuple[Cell, list[Cell]]
"""The name of a row, and a cell for each variant."""


def variant_table(title: str, labels: Iterable[str], rows: Iterable[Row]) -> Table:
    """Return a table with a row for each figure and a column for each variant.

    Rows without any text are left out.
    """
    columns = (Column(role="quiet"), *(Column(label) for label in labels))
    kept = tuple((name, *row) for name, row in rows if any(cell.text for cell in row))
    return Table(title, columns, kept)


def row(name: str, items: Iterable[_T], read: Callable[[_T], object], *, part: bool = False) -> Row:
    """Return a row of what `read` returns for each item; None gives an empty cell.

    `part` says that the row is a part of the row above; its name is then indented.
    """
    return Cell(name, indent=2 * part), [Cell(str(read(item) or "")) for item in items]
