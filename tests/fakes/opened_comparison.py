"""A comparison of real workers, opened in the same way as by the screen."""

from __future__ import annotations

from fakes.waiting import until
from quantchat.checkpoints.builder import CheckpointBuilder
from quantchat.host.worker_process import start_worker
from quantchat.profile.model import Profile
from quantchat.session.comparison import Comparison
from quantchat.session.conversation import Turn
from quantchat.session.live_variant import LiveVariant, State


class Opened:
    """A comparison of the first two variants of `spec`."""

    def __init__(self, spec: Profile) -> None:
        self.comparison = Comparison(
            spec,
            provider=CheckpointBuilder(start_worker),
            start=start_worker,
            on_change=self._changed,
        )
        self.one, self.other = self.comparison.sides
        self.stages: list[str] = []
        self.details: list[str] = []
        """Progress details of the first side while it loaded."""

    def _changed(self, _: object) -> None:
        if self.one.progress:
            self.stages.append(self.one.progress.stage)
            self.details.append(self.one.progress.detail)

    async def load(self, *sides: LiveVariant) -> LiveVariant:
        """Load both sides, wait until `sides` (default: both) are settled; return the first."""
        self.comparison.open()
        waited = sides or self.comparison.sides
        await until(lambda: all(v.state in (State.READY, State.FAILED) for v in waited))
        return self.one

    async def ask(self) -> Turn:
        """Send one prompt, and return the turn when both have answered."""
        turn = self.comparison.ask("What is the capital of France?")
        await self.comparison.wait()
        return turn
