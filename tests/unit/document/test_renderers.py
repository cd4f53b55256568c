"""Each renderer shows every part of a document, with its text made harmless."""

from __future__ import annotations

import csv
import io

from hypothesis import given

from fakes.page_reader import PageReader
from fakes.printed_document import printed
from fakes.safe_line import is_clean
from fakes.saved_snapshots import hostile_text
from quantchat.document.csv_file import csv_file
from quantchat.document.document import (
    Block,
    Cell,
    Column,
    DataTable,
    Document,
    Facts,
    Section,
    Table,
    Verbatim,
    cells,
    paragraph,
    table,
    variant_table,
    warnings,
)
from quantchat.document.html import html
from quantchat.document.markdown import markdown
from quantchat.text import neutralise


def parts(text: str) -> list[Block]:
    """One part of each kind, with `text` in each place that takes one."""
    shown = Table(
        text,
        (Column(text, role="quiet"), Column(text, right=True, heading_end=text, footer=text)),
        (cells((Cell(text, text, "heading"), text)), cells((Cell(text, indent=2), text))),
        frozenset({1}),
    )
    return [
        paragraph((text, "bad"), text, indent=2),
        Verbatim(text, "quiet"),
        Facts((text,)),
        *warnings([text]),
        shown,
    ]


@given(hostile_text)
def test_no_part_of_hostile_text_acts_on_its_reader(text: str) -> None:
    assert all(is_clean(line.replace("\t", " ")) for line in printed(parts(text)).split("\n"))
    whole = Document(text, tuple(parts(text)), (Section("one", text, tuple(parts(text))),))
    for data in (html(whole), markdown(whole, "files")):
        assert neutralise(data.decode()) == data.decode()
    written = csv_file(DataTable(("text",), ((text,), (f"={text}",)))).decode()
    assert neutralise(written) == written
    rows = list(csv.reader(io.StringIO(written, newline="")))
    assert len(rows) == 3 and rows[2][0].startswith("'=")


def test_every_renderer_shows_every_part() -> None:
    whole = Document("Title", tuple(parts("one text")), ())
    assert printed(parts("one text")).count("one text") == 2 + 1 + 1 + 1 + 1 + 4 + 5
    assert PageReader(html(whole)).text.count("one text") == 2 + 1 + 1 + 1 + 1 + 3 + 5
    assert markdown(whole, "files").decode().count("one text") == 2 + 1 + 1 + 1 + 1 + 3 + 5


def test_a_page_links_a_row_to_its_section() -> None:
    overview = table("", ("", "figure"), [(Cell("run", link="anchor"), "1")])
    page = PageReader(html(Document("Title", (overview,), (Section("anchor", "Run", ()),))))
    assert [a["href"] for tag, a in page.elements if tag == "a"] == ["#anchor"]
    assert [a["id"] for tag, a in page.elements if tag == "article"] == ["anchor"]


def test_a_terminal_sets_parts_in_and_leaves_no_empty_head() -> None:
    bare = Table("", (Column(), Column()), (cells(("a", "1")), cells((Cell("b", indent=2), "2"))))
    assert [line.rstrip() for line in printed(bare).splitlines()] == ["a    1", "  b  2"]


def test_a_terminal_breaks_a_heading_before_its_end() -> None:
    lines = printed(table("", ("", Column("ttft", heading_end="_ms")), [("a", "1")])).splitlines()
    (first,) = [place for place, line in enumerate(lines) if "ttft" in line]
    assert lines[first + 1].strip() == "_ms"


def test_a_row_that_says_nothing_is_left_out() -> None:
    empty, full = (Cell("empty"), [Cell("")]), (Cell("full"), [Cell("x")])
    shown = variant_table("", ["A"], [empty, full])
    assert [row[0].text for row in shown.rows] == ["full"]
