"""A comparison over real workers, opened as the screen has it."""

from __future__ import annotations

from fakes.waiting import until
from quantchat.bench.comparison import Comparison
from quantchat.bench.conversation import Turn
from quantchat.bench.live_variant import LiveVariant, State
from quantchat.host.worker_process import start_worker
from quantchat.profile.model import Profile
from quantchat.quantize.workshop import Workshop


class Opened:
    """The first two variants of `spec`."""

    def __init__(self, spec: Profile) -> None:
        self.comparison = Comparison(
            spec, maker=Workshop(start_worker), start=start_worker, on_change=self._changed
        )
        self.one, self.other = self.comparison.sides
        self.stages: list[str] = []
        self.details: list[str] = []
        """What the first side told of its loading."""

    def _changed(self, _: object) -> None:
        if self.one.progress:
            self.stages.append(self.one.progress.stage)
            self.details.append(self.one.progress.detail)

    async def load(self, *sides: LiveVariant) -> LiveVariant:
        """Load both, and wait until `sides` (by default both) are settled; the first of them."""
        self.comparison.open()
        waited = sides or self.comparison.sides
        await until(lambda: all(v.state in (State.READY, State.FAILED) for v in waited))
        return self.one

    async def ask(self) -> Turn:
        """One prompt, answered by both."""
        turn = self.comparison.ask("What is the capital of France?")
        await self.comparison.wait()
        return turn
