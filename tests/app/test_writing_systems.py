"""Text of every writing system is drawn in full, whichever way the terminal measures its width."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from textual.geometry import Region
from wcwidth import iter_graphemes

from fakes.cell_terminal import WAYS, CellTerminal
from fakes.scripted_app import Running, Setup
from fakes.writing_systems import WRITTEN
from quantchat.app.cell_widths import cell_length, chop_cells, with_counted_width
from quantchat.app.textual_workarounds import draw_each_script
from quantchat.text import neutralise


def written(run: Running, region: Region | None = None) -> str:
    """What is written to the terminal, of all the screen or of `region`, which has changed."""
    compositor = run.app.screen._compositor
    if region is None:
        return compositor.render_full_update().render_segments(run.app.console)
    compositor._dirty_regions = {region}
    update = compositor.render_partial_update()
    assert update is not None
    return update.render_segments(run.app.console)


def glyphs(text: str) -> str:
    return "".join(c for c in text if not c.isspace())


@pytest.mark.parametrize("columns", [80, 120])
async def test_each_script_is_drawn_and_the_columns_stay(setup: Setup, columns: int) -> None:
    for script in (setup.left, setup.right):
        said = [f"{name}: {text} end" for name, text in WRITTEN.items()]
        said.append("| a | b |\n|-|-|\n" + "\n".join(f"| {t} | x |" for t in WRITTEN.values()))
        said += [f"- **{text}** `{text}`" for text in WRITTEN.values()]
        said.append("```\n" + "\n".join(WRITTEN.values()) + "\n```")
        script.answer = lambda request, said=said: "\n\n".join(said)  # type: ignore[misc]
    size = (columns, 200)  # all of it at once
    async with setup.running(size) as run:
        await run.ready()
        await run.answered(" ".join(WRITTEN.values()))
        region = run.screen.columns.pair[0].transcript.region
        whole, part = written(run), written(run, region)
        rules = None
        for way in WAYS:
            terminal = CellTerminal(*size, way)
            terminal.feed(whole)
            before = terminal.lines
            terminal.feed(part)
            assert terminal.lines == before
            places = [
                (x, y)
                for y, row in enumerate(terminal.rows)
                for x, cell in enumerate(row)
                if cell in {"▏", "│", "▌"}
            ]
            assert places == (rules or places)
            rules = places
            rows = terminal.rows[region.y : region.bottom]
            drawn = glyphs("".join("".join(row[region.x : region.right]) for row in rows))
            wanted = [glyphs(neutralise(f"{name}: {text} end")) for name, text in WRITTEN.items()]
            assert [text for text in wanted if text not in drawn] == []


_any_character = st.characters(exclude_categories=["Cc", "Cs", "Cn", "Zl", "Zp"])


@settings(max_examples=200)
@given(st.text(_any_character | st.sampled_from("".join(WRITTEN.values())), max_size=60))
def test_no_terminal_takes_more_cells_than_are_reckoned(said: str) -> None:
    draw_each_script()
    text = neutralise(said)
    room = cell_length(text)
    for way in WAYS:
        terminal = CellTerminal(room + 3, 1, way)
        terminal.feed(f"|{with_counted_width(text)}|")
        (row,) = terminal.rows
        assert row[0].startswith("|") and row[room + 1] == "|" and row[-1] == " "
        assert glyphs("".join(row)) == glyphs(f"|{text}|")


@given(st.text(_any_character | st.sampled_from("".join(WRITTEN.values()))), st.integers(2, 20))
def test_lines_are_cut_between_graphemes_and_lose_nothing(said: str, width: int) -> None:
    draw_each_script()
    lines = chop_cells(said, width)
    assert "".join(lines) == said
    assert all(0 < cell_length(line) <= width or not line.strip() for line in lines[:-1])
    whole = list(iter_graphemes(said))
    narrow = [one for one in whole if cell_length(one) <= width]
    assert all(any(one in line for line in lines) for one in narrow)


def test_cells_are_those_of_the_parts_added_up() -> None:
    draw_each_script()
    for text in WRITTEN.values():
        for cut in range(len(text)):
            if text[cut] != "\ufe0f":
                assert cell_length(text[:cut]) + cell_length(text[cut:]) == cell_length(text)
