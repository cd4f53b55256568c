"""The real screen and the real comparison, with scripted workers on a scripted machine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from textual.pilot import Pilot

from fakes.screen_reader import text, wait_until
from fakes.scripted_machine import ScriptedMachine
from fakes.scripted_worker import MIB, Script, ScriptedProvider, model_info, starter
from quantchat.app.app import QuantchatApp
from quantchat.app.preferences import Preferences
from quantchat.app.screens.comparison import ComparisonScreen
from quantchat.app.widgets.turn_view import TurnView
from quantchat.features.votes.voting import VotePlan
from quantchat.host.worker_process import Place, Worker, start_worker
from quantchat.profile.model import Profile
from quantchat.session.comparison import Comparison
from quantchat.session.live_variant import State
from quantchat.snapshot.schema import Snapshot
from quantchat.system.gpus import GpuSample

LEFT, RIGHT, THIRD = "GPTQ 4-bit", "NF4 double", "bf16"
DEMO = "demo:smollm2-135m-instruct"
SIZES = [(80, 24), (120, 40), (200, 50)]


def profile(**more: object) -> Profile:
    return Profile.model_validate(
        {
            "name": "a comparison",
            "variants": [
                {"label": LEFT, "engine": "gptq", "model": DEMO},
                {"label": RIGHT, "engine": "bitsandbytes", "model": DEMO},
                {"label": THIRD, "engine": "transformers", "model": DEMO},
            ],
            **more,
        }
    )


@dataclass
class Running:
    """A running app and the objects that control it."""

    app: QuantchatApp
    pilot: Pilot[None]
    left: Script
    right: Script
    third: Script
    folder: Path
    machine: ScriptedMachine

    @property
    def screen(self) -> ComparisonScreen:
        return next(s for s in self.app.screen_stack if isinstance(s, ComparisonScreen))

    @property
    def comparison(self) -> Comparison:
        return self.screen.comparison

    async def ready(self) -> None:
        """Wait until both sides are loaded, and the screen shows it."""
        await wait_until(
            self.pilot,
            lambda: all(v.state is State.READY for v in self.comparison.sides),
            "both variants ready",
        )
        # One that stands in a column says nothing of the other.
        await wait_until(
            self.pilot,
            lambda: text(self.app).count("● ready") >= len(self.screen.columns.visible_columns),
            "both seen to be ready",
        )

    async def ask(self, prompt: str = "Where is Paris?") -> None:
        """Type `prompt` and send it."""
        before = self.comparison.last_turn
        self.screen.prompt.set_text(prompt)
        await self.pilot.press("enter")
        await wait_until(self.pilot, lambda: self.comparison.last_turn is not before, "a turn")

    async def answered(self, prompt: str = "Where is Paris?") -> None:
        """Send `prompt`, and wait until both answers are over and drawn."""
        turns = len(self.comparison.conversation.turns)
        await self.ask(prompt)
        await wait_until(
            self.pilot,
            lambda: (
                len(self.comparison.conversation.turns) > turns
                and self.comparison.conversation.turns[-1].over
                and not self.comparison.busy
            ),
            "both answers",
        )
        await self.settled()

    async def settled(self) -> None:
        """Wait until all answers, including the last turn's, are drawn to their ends."""

        def drawn() -> bool:
            views, last = self.screen.query(TurnView), self.comparison.last_turn
            of_last = sum(view.turn is last for view in views)
            there = last is None or of_last == len(self.screen.columns.pair)
            return there and all(view.fully_drawn for view in views)

        await wait_until(self.pilot, drawn, "all answers drawn")
        on_screen = asyncio.Event()
        self.screen.call_after_refresh(on_screen.set)
        await on_screen.wait()


@dataclass
class Setup:
    """The initial state of a run; change it before `running`."""

    folder: Path
    profile: Profile
    left: Script
    right: Script
    third: Script
    gpus: tuple[GpuSample, ...] = ()
    real: tuple[str, ...] = ()
    """Labels of the variants that run in a worker of their own, and by no script."""
    votes: VotePlan | None = None
    chat: Snapshot | None = None
    """The saved chat to continue."""
    pair: tuple[int, int] = (0, 1)
    preferences: Preferences | None = None

    @classmethod
    def usual(cls, folder: Path) -> Setup:
        return cls(
            folder,
            profile(),
            Script(model_info=model_info("TorchLinear 4-bit", engine="gptq"), process=498 * MIB),
            Script(token_ms=30.0, process=611 * MIB),
            Script(model_info=model_info("Linear", engine="transformers"), process=900 * MIB),
        )

    @contextlib.asynccontextmanager
    async def running(self, size: tuple[int, int] = (120, 40)) -> AsyncIterator[Running]:
        """Start the app on a terminal of `size`."""
        variants = [variant.label for variant in self.profile.variants]
        scripts = dict(zip(variants, (self.left, self.right, self.third), strict=False))
        machine = ScriptedMachine(*self.gpus)
        scripted = starter(scripts, self.folder)

        async def start(place: Place) -> Worker:
            return await (start_worker if place.label in self.real else scripted)(place)

        def compare(profile: Profile) -> Comparison:
            return Comparison(profile, provider=ScriptedProvider(scripts), start=start)

        app = QuantchatApp(
            self.profile,
            snapshots=self.folder / "snapshots",
            votes=self.votes,
            chat=self.chat,
            pair=self.pair,
            preferences=self.preferences,
            make_comparison=compare,
            make_sampler=lambda: machine,
        )
        async with app.run_test(size=size, notifications=True) as pilot:
            yield Running(app, pilot, self.left, self.right, self.third, self.folder, machine)
