"""Text that is slow to parse or draw: each step does little work, whatever the length."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from linkify_it import LinkifyIt  # type: ignore[import-untyped]
from textual.content import Content, Span

from fakes.heavy_text import SHAPES
from quantchat.app import incremental_markdown, markdown
from quantchat.app.incremental_markdown import (
    CUT_AFTER_CHARACTERS,
    CUT_AFTER_PARTS,
    SLICE_CHARACTERS,
    IncrementalMarkdown,
)
from quantchat.app.markdown import Block, blocks, code_lines

HEADS = 2 * CUT_AFTER_CHARACTERS
"""Characters that stand before what is parsed again: the head of a table, that of a fence."""


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many characters each call of the parser was given."""
    calls: list[int] = []

    def counted(source: str) -> list[Block]:
        calls.append(len(source))
        return blocks(source)

    monkeypatch.setattr(incremental_markdown, "blocks", counted)
    return calls


def grown(text: str) -> IncrementalMarkdown:
    growing = IncrementalMarkdown()
    growing.fit(76)
    growing.feed(text)
    while growing.has_backlog:
        growing.advance()
    return growing


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_parsed_at_once_is_little_and_grows_with_the_text_alone(
    shape: str, parsed: list[int]
) -> None:
    each = []
    for size in (3000, 6000):
        parsed.clear()
        text = SHAPES[shape](size)
        grown(text)
        assert max(parsed) <= CUT_AFTER_CHARACTERS + SLICE_CHARACTERS + HEADS
        each.append(sum(parsed) / len(text))
    assert each[1] < 1.3 * each[0] + 1
    assert each[1] < 12


def test_a_long_head_is_not_parsed_again_and_again(parsed: list[int]) -> None:
    for head in ("|" + "a|" * 5000 + "\n|" + "-|" * 5000 + "\n", "```" + "a" * 10_000 + "\n"):
        parsed.clear()
        text = head + "|x|y|\n" * 500
        grown(text)
        assert sum(parsed) < 12 * len(text)


def test_no_more_is_taken_at_once_than_there_is_time_for(
    monkeypatch: pytest.MonkeyPatch, parsed: list[int]
) -> None:
    ticks = itertools.count()
    monkeypatch.setattr(incremental_markdown, "clock", lambda: float(next(ticks)))  # all takes long
    text = IncrementalMarkdown()
    text.feed("word " * 1000)
    assert len(parsed) == 1 and text.has_backlog
    height = text.height
    text.advance()
    assert text.height >= height and len(parsed) <= 3
    monkeypatch.undo()
    text.finish()
    assert not text.busy
    assert sum(text.line(n).plain.count("word") for n in range(text.height)) == 1000


def test_many_short_items_are_cut_before_many_characters() -> None:
    text = grown("- a\n" * 1000)
    assert all(block.parts <= CUT_AFTER_PARTS + 6 * SLICE_CHARACTERS for block in text._tail_blocks)
    assert text.final_height > 900


def test_another_width_is_drawn_a_little_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "some words of prose that go on for a while. " * 900  # longer than MAX_REPARSED
    text = grown(said)
    text.complete_with(said)
    text.finish()
    ticks = itertools.count()
    monkeypatch.setattr(incremental_markdown, "clock", lambda: float(next(ticks)))
    text.fit(40)
    assert text.has_backlog and text.height
    assert [text.line(n) for n in range(text.height)]  # until then the lines are those of before
    monkeypatch.undo()
    text.finish()
    assert max(text.line(n).cell_length for n in range(text.height)) <= 40


def test_an_address_is_looked_for_in_each_word_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    longest = 0

    def watch(name: str) -> None:
        plain = getattr(LinkifyIt, name)

        def counted(self: LinkifyIt, text: str) -> Any:
            nonlocal longest
            longest = max(longest, len(text))
            return plain(self, text)

        monkeypatch.setattr(LinkifyIt, name, counted)

    watch("match")
    watch("match_at_start")
    (block,) = blocks("see http://a.example/b, www.c.org, " + "http://d." * 500 + " e@f.org")
    links = [child.attrs["href"] for child in block.tokens[1].children or () if child.attrs]
    assert links == ["http://a.example/b", "http://www.c.org", "mailto:e@f.org"]
    assert longest <= markdown._LONGEST_LINK


def test_code_without_a_language_is_not_guessed_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("textual.highlight.guess_language", pytest.fail)
    for said in ("```\ncode\n```\n\nx", "    code\n\nx", "\tcode\n\nx"):
        text = grown(said)
        text.complete_with(said)
        text.finish()
        assert text.line(0).plain.strip() == "code"


def test_each_part_of_a_line_of_code_has_the_colours_that_lie_in_it() -> None:
    code = "".join(f"{n % 10}" for n in range(1000))
    colours = [Span(n, n + 1, f"c{n}") for n in range(1000)]
    code_text = Content(code + "\nend", [Span(0, 1004, "all"), *colours])
    lines = code_lines(code_text, 22)
    assert [line.plain[1:].rstrip() for line in lines] == [
        *(code[n : n + 20] for n in range(0, 1000, 20)),
        "end",
    ]
    for number, line in enumerate(lines[:-1]):
        ground, over_all, *own = line.spans
        assert (ground.end, over_all.start, over_all.end) == (22, 1, 21)
        assert own == [Span(n + 1, n + 2, f"c{20 * number + n}") for n in range(20)]
