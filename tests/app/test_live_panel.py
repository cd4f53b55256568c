"""The live panel repaints all lines that changed, and no others."""

from __future__ import annotations

import dataclasses

from textual.app import App, ComposeResult

from fakes.screen_reader import see
from fakes.scripted_worker import MIB, ledger
from quantchat.app.memory_track import MemoryTrack
from quantchat.app.themes import VARIABLES
from quantchat.app.widgets.live_panel import LivePanel, Scales
from quantchat.session.conversation import Answer
from quantchat.system.process_memory import ProcessMemory
from quantchat.wire.messages import Drafted


class Panel(App[None]):
    """Nothing but a panel."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = MemoryTrack()
        self.panel = LivePanel(self.memory)

    def get_theme_variable_defaults(self) -> dict[str, str]:
        return VARIABLES

    def compose(self) -> ComposeResult:
        yield self.panel

    def note(self, kv_cache: int) -> None:
        held = ProcessMemory(700 * MIB, "resident")
        self.memory.add(0.0, 1, ledger(kv_cache=kv_cache), held)


async def test_what_changes_between_drawing_and_painting_is_painted_in_the_end() -> None:
    app = Panel()
    async with app.run_test(size=(70, 10)) as pilot:
        app.note(kv_cache=0)
        app.panel.draw(Scales(memory=1024 * MIB))
        await see(pilot, "KV 0 B")
        app.panel.draw(Scales(memory=2048 * MIB))
        app.note(kv_cache=8 * MIB)  # before the strip's new scale is painted
        await see(pilot, "2.0 GiB")
        app.panel.draw(Scales(memory=2048 * MIB))
        await see(pilot, "KV 8.0 MiB")


async def test_a_draft_has_its_memory_and_its_acceptance() -> None:
    app = Panel()
    async with app.run_test(size=(70, 10)) as pilot:
        held = ProcessMemory(700 * MIB, "resident")
        app.memory.add(0.0, 1, dataclasses.replace(ledger(), draft=21 * MIB), held)
        answer = Answer("A", "in-turn")
        app.panel.observe(answer)
        app.panel.draw(Scales())
        await see(pilot, "draft 21.0 MiB")
        answer.grow(Drafted(1, drafted=8, accepted=6, steps=3), from_server=False)
        app.panel.observe(answer)
        app.panel.draw(Scales())
        await see(pilot, "acceptance 75 %")
