"""A streamed answer can be read in full, whatever its chunks and blocks are."""

from __future__ import annotations

import pytest
import textual.highlight
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.synthetic_text import KINDS, tokens
from quantchat.app import incremental_markdown
from quantchat.app.incremental_markdown import IncrementalMarkdown
from quantchat.app.markdown import Block, blocks, code_lines, code_text
from quantchat.app.markdown_table import column_widths, table_lines

WIDTH = 56


def drawn(text: IncrementalMarkdown) -> list[str]:
    text.finish()
    return [text.line(number).plain.rstrip() for number in range(text.height)]


def grown(pieces: list[str], at_once: int, width: int = WIDTH) -> IncrementalMarkdown:
    text = IncrementalMarkdown()
    text.fit(width)
    for first in range(0, len(pieces), at_once):
        text.feed("".join(pieces[first : first + at_once]))
    text.finish()
    return text


def letters(lines: list[str]) -> str:
    """All that is no white space, and no mark or line that drawing adds or takes away."""
    return "".join(c for line in lines for c in line if c.isalnum())


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_lost_where_a_long_block_is_cut(kind: str) -> None:
    pieces = tokens(kind, 3000)
    text = grown(pieces, 37)
    assert (
        text.final_height > text.height * 0.9
    )  # or each token would cost more than the one before
    said = letters(pieces).replace("python", "", 1 if kind == "code" else 0)
    assert letters(drawn(text)) == said
    text.complete_with("".join(pieces))
    assert letters(drawn(text)) == said


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_parsed_again_does_not_grow_with_the_answer(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    longest = 0

    def counted(source: str) -> list[Block]:
        nonlocal longest
        longest = max(longest, len(source))
        return blocks(source)

    monkeypatch.setattr(incremental_markdown, "blocks", counted)
    chunk = 40
    pieces = tokens(kind, 6000)
    grown(pieces, chunk)
    most = max(len("".join(pieces[n : n + chunk])) for n in range(0, len(pieces), chunk))
    assert (
        longest <= incremental_markdown.CUT_AFTER_CHARACTERS + most + 100
    )  # and the head of a table or fence


SAMPLE = """# Head
Some **bold** `code` and a [link](https://example.org/a).

- one
- two
  - nested, and long enough that it has to go on in the next line of the screen

  a paragraph of two
- three

3. third
4. fourth

> quoted
> - in the quote

```python
print("x")

	tabbed
```

| number | word |
|-------:|:----:|
| 1 | one |
| 22 | *two* |

---

<think>kept</think>
line
break"""


def test_each_kind_of_block_is_drawn() -> None:
    text = IncrementalMarkdown()
    text.fit(40)
    text.complete_with(SAMPLE)
    assert drawn(text) == [
        "Head",
        "",
        "Some bold code and a link.",
        "",
        "• one",
        "• two",
        "  ◦ nested, and long enough that it has",
        "    to go on in the next line of the",
        "    screen",
        "",
        "  a paragraph of two",
        "• three",
        "",
        "3. third",
        "4. fourth",
        "",
        "▌ quoted",
        "▌ • in the quote",
        "",
        ' print("x")',
        "",
        "     tabbed",
        "",
        "number │ word",
        "───────┼─────",
        "     1 │ one",
        "    22 │ two",
        "",
        "─" * 40,
        "",
        "<think>kept</think>",
        "line",
        "break",
    ]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40))
def test_chunks_make_no_difference_in_the_end(cuts: list[int]) -> None:
    text, first = IncrementalMarkdown(), 0
    text.fit(40)
    for cut in cuts:
        text.feed(SAMPLE[first : first + cut])
        first += cut
    text.feed(SAMPLE[first:])
    text.complete_with(SAMPLE)
    whole = IncrementalMarkdown()
    whole.fit(40)
    whole.complete_with(SAMPLE)
    assert drawn(text) == drawn(whole)


@settings(max_examples=200)
@given(
    st.text(alphabet="ab \n`~|-#>*1.[]()_\\\t😀語", max_size=300),
    st.integers(1, 30),
    st.integers(1, 30),
)
def test_any_text_is_drawn_within_its_width(source: str, chunk: int, width: int) -> None:
    text = grown(list(source), chunk, width)
    for _ in range(2):
        lines = [text.line(number) for number in range(text.height)]
        assert all(line.cell_length <= max(width, 40) for line in lines)
        assert text.final_height <= text.height
        text.complete_with(source)


@settings(max_examples=200)
@given(
    st.lists(st.sampled_from(["a", " ", "語", "e\u0301", "क्षि", "👩\u200d💻", "🇫🇷"])),
    st.integers(4, 30),
)
def test_code_keeps_each_character_that_takes_no_cell_of_its_own(
    said: list[str], width: int
) -> None:
    code = "".join(said).rstrip()
    lines = code_lines(code_text(code), width)
    assert "".join(line.plain[1:] for line in lines).replace(" ", "") == code.replace(" ", "")
    assert all(line.cell_length <= width for line in lines)


def test_another_width_draws_all_anew() -> None:
    text = grown(tokens("prose", 900), 50)
    assert text.fit(30) and not text.fit(30)
    assert drawn(text) == drawn(grown(tokens("prose", 900), 50, 30))
    assert max(map(len, drawn(text))) <= 30


def test_controls_are_marked() -> None:
    text = grown(list("a\x1b]0;x\x07b"), 1)
    assert drawn(text) == ["a␛]0;x␇b"]


def test_long_code_is_coloured_as_one_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    coloured: list[int] = []
    plain = textual.highlight.highlight

    def counted(code: str, **more: object) -> object:
        coloured.append(len(code.splitlines()))
        return plain(code, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("textual.highlight.highlight", counted)
    body = "".join(f"x{n} = {n}\n" for n in range(400))
    text = grown(["```python\n", *body.splitlines(keepends=True)], 3)
    assert coloured == []
    text.feed("```\n\nAnd so on.")
    assert coloured == [] and len(text.jobs) == 1  # it takes too long for the event loop
    assert drawn(text)[:2] == [" x0 = 0", " x1 = 1"] and drawn(text)[-2:] == ["", "And so on."]
    assert coloured == [400]


def test_a_wide_table_gives_way_where_it_is_widest() -> None:
    rows = [[c for b in blocks(f"{'w' * n}") for c in b.lines(200)] for n in (4, 30, 90)]
    cells = [[row[0] for row in rows]]
    assert column_widths(cells, 60) == [4, 25, 25]
    assert column_widths(cells, 200) == [4, 30, 90]
    assert all(line.cell_length <= 60 for line in table_lines(cells, ["", "", ""], 60))
