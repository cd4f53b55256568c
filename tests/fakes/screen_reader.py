"""Reads the screen as its user does, and waits for expected text."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from typing import Any

from textual.app import App
from textual.geometry import Region
from textual.pilot import Pilot
from textual.screen import ModalScreen

from fakes.waiting import PATIENCE_S

_BORDERS = dict.fromkeys(map(ord, "▏▌│"), " ")
_SCROLLBAR_END = re.compile(r"(?<= )[▁▂▃▄▅▆▇](?=▏|$)", re.MULTILINE)
"""Where a scrollbar's thumb begins or ends within a cell; a chart's bars are followed by text."""


def lines(app: App[Any]) -> list[str]:
    """Return what the topmost screen draws, one string for each line of the terminal."""
    return [strip.text for strip in app.screen._compositor.render_strips()]


def text(app: App[Any]) -> str:
    """Return what the topmost screen draws, with each run of white space as one blank.

    Of a dialog, only itself and its messages: what shows on both sides of it would stand between
    its words.
    """
    strips = app.screen._compositor.render_strips()
    if isinstance(app.screen, ModalScreen):
        seen = app.screen._compositor.visible_widgets
        shown = [place.intersection(clip) for one, (place, clip) in seen.items() if one.parent]
        regions = [one for one in shown if one.area and one != app.screen.region]
        if not regions:  # it is not laid out yet
            return ""
        drawn = Region.from_union(regions)
        strips = [strip.crop(drawn.x, drawn.right) for strip in strips[drawn.y : drawn.bottom]]
    return _prose([strip.text for strip in strips])


def column(app: App[Any], index: int) -> str:
    """Return the left (0) or the right (1) half of the screen."""
    middle = app.size.width // 2
    return _prose([line[:middle] if index == 0 else line[middle:] for line in lines(app)])


def _prose(drawn: list[str]) -> str:
    # Borders, and the end of a scrollbar, would stand between the words of text that wraps.
    words = _SCROLLBAR_END.sub("", "\n".join(drawn)).translate(_BORDERS)
    return " ".join(words.split())


async def wait_until(pilot: Pilot[Any], true: Callable[[], object], what: str = "") -> None:
    """Run the app until `true()`; fail with the screen's text after `PATIENCE_S`."""
    end = time.monotonic() + PATIENCE_S
    while not true():
        if time.monotonic() > end:
            raise AssertionError(f"never happened: {what}\n" + "\n".join(lines(pilot.app)))
        await asyncio.sleep(0.02)


async def see(pilot: Pilot[Any], expected: str) -> None:
    """Wait until `expected` can be read on the screen."""
    await wait_until(pilot, lambda: expected in text(pilot.app), f"{expected!r} on the screen")


async def see_in(pilot: Pilot[Any], side: int, *expected: str) -> None:
    """Wait until each of `expected` can be read in the left (0) or the right (1) half."""
    for one in expected:
        what = f"{one!r} in the {('left', 'right')[side]} half"
        await wait_until(pilot, lambda one=one: one in column(pilot.app, side), what)  # type: ignore[misc]


async def see_gone(pilot: Pilot[Any], gone: str) -> None:
    """Wait until `gone` can no longer be read on the screen."""
    await wait_until(pilot, lambda: gone not in text(pilot.app), f"{gone!r} leaves the screen")
