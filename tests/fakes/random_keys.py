"""Sends random keys, clicks and resizes in quick succession, from a seeded generator."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from pathlib import Path
from typing import Any

from textual import events
from textual.app import App

from fakes.scripted_app import Setup
from fakes.scripted_machine import GPU, ScriptedMachine
from fakes.scripted_worker import Script, ScriptedProvider, starter
from quantchat.app.app import QuantchatApp
from quantchat.app.commands import COMMANDS
from quantchat.profile.model import Profile
from quantchat.session.comparison import Comparison
from quantchat.wire.messages import Generate

_COMMAND_KEYS = [key for one in COMMANDS if one.id != "quit" for key in one.keys.split(",")]
_OTHER_KEYS = [
    *("tab", "shift+tab", "up", "down", "left", "right", "home", "end", "pageup", "pagedown"),
    *("space", "backspace", "delete", "ctrl+a", "ctrl+u", "ctrl+c", "ctrl+z", "ctrl+home"),
    *("ctrl+end", "shift+left", "shift+right", "a", "b", "t", "x", "q"),
]
_USUAL_KEYS = ["enter", "enter", "enter", "escape", "escape", "escape", "ctrl+p", "tab", "down"]
_CHARACTERS = {"space": " ", "enter": "\r", "tab": "\t"}
_SIZES = [(1, 1), (2, 45), (3, 3), (20, 5), (40, 12), (80, 24), (80, 24), (120, 40), (200, 60)]
_BURST = 6
"""Most keys that come at once."""


class Monkey:
    """Sends random input to `app` by `seed`. The app never exits: a request to exit is ignored."""

    def __init__(self, app: App[Any], seed: int) -> None:
        self._app = app
        self._random = random.Random(seed)
        self._done: deque[str] = deque(maxlen=60)
        self.seen: Counter[str] = Counter()
        """Screens by their names, and how many bursts each was met by."""
        app.exit = lambda *_, **__: None  # type: ignore[method-assign]

    async def act(self, count: int) -> None:
        """Send `count` inputs, a few at a time. Raises AssertionError if one raises something."""
        left = count
        while left > 0:
            burst = min(left, self._random.randint(1, _BURST))
            self.seen[type(self._app.screen).__name__] += 1
            for _ in range(burst):
                self._one()
            left -= burst
            # Now at once, now after what these have brought about.
            for _ in range(self._random.choice((0, 1, 5, 30))):
                await asyncio.sleep(0)
            if self._random.random() < 0.05:
                await asyncio.sleep(0.02)
            if self._app._exception is not None:
                done = " ".join(self._done)
                raise AssertionError(f"after {count - left}, the last: {done}") from (
                    self._app._exception
                )
            assert self._app._running, f"it ended after: {' '.join(self._done)}"

    def _one(self) -> None:
        chance = self._random.random()
        if chance < 0.03:
            size = self._random.choice(_SIZES)
            self._done.append(f"{size[0]}x{size[1]}")
            self._resize(*size)
        elif chance < 0.06:
            self._click()
        else:
            pool = self._random.choice((_COMMAND_KEYS, _OTHER_KEYS, _USUAL_KEYS, _USUAL_KEYS))
            key = self._random.choice(pool)
            self._done.append(key)
            character = _CHARACTERS.get(key, key if len(key) == 1 else None)
            self._app.post_message(events.Key(key, character))

    def _resize(self, width: int, height: int) -> None:
        driver = self._app._driver
        assert driver is not None
        driver._size = (width, height)
        self._app.post_message(events.Resize.from_dimensions((width, height), None))

    def _click(self) -> None:
        width, height = self._app.size
        x, y = self._random.randrange(max(1, width)), self._random.randrange(max(1, height))
        self._done.append(f"click({x},{y})")
        for kind in (events.MouseDown, events.MouseUp):
            self._app.post_message(
                kind(None, x, y, 0, 0, 1, False, False, False, screen_x=x, screen_y=y)
            )


async def on_the_comparison(folder: Path, seed: int, count: int) -> Counter[str]:
    """Act on the comparison and all that can be opened from it; the screens that were met."""
    setup = Setup.usual(folder)
    setup.gpus = (GPU,)
    numbers = random.Random(seed)

    def answer(request: Generate) -> str:
        return "Of **Paris** and `so` on.\n\n" * numbers.randint(0, 4)

    for script in (setup.left, setup.right, setup.third):
        script.answer = answer
    async with setup.running() as run:
        await run.ready()
        monkey = Monkey(run.app, seed)
        await monkey.act(count)
        return monkey.seen


async def on_the_start(folder: Path, seed: int, count: int) -> Counter[str]:
    """The same from the start screen on, and from a profile chosen there."""

    def compare(profile: Profile) -> Comparison:
        scripts = {variant.label: Script() for variant in profile.variants}
        return Comparison(
            profile, provider=ScriptedProvider(scripts), start=starter(scripts, folder)
        )

    app = QuantchatApp(
        snapshots=folder / "snapshots", make_comparison=compare, make_sampler=ScriptedMachine
    )
    async with app.run_test(size=(120, 40), notifications=True):
        monkey = Monkey(app, seed)
        await monkey.act(count)
        return monkey.seen
