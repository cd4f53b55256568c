"""Measures the pair in rounds: shows the progress, then the result."""

from __future__ import annotations

import asyncio
from pathlib import Path

from rich.console import Group, RenderableType
from textual.content import Content

from quantchat.app.crash_recovery import CrashRecovery
from quantchat.app.device_watch import MakeSampler
from quantchat.app.screens.progress import ProgressScreen
from quantchat.app.widgets.dialog import Dialog
from quantchat.app.widgets.text_layout import quiet, untrusted
from quantchat.daemon_thread import to_daemon_thread
from quantchat.document import terminal
from quantchat.errors import UserError
from quantchat.features.measure.tables import blocks, prompts_table
from quantchat.measuring.measurement import Measurement
from quantchat.measuring.record import record_measurement
from quantchat.measuring.rounds import Plan
from quantchat.session.comparison import Comparison
from quantchat.snapshot.schema import Snapshot


class MeasuringScreen(ProgressScreen):
    """Measures `plan` on the pair that `comparison` shows, saves a snapshot, shows the result."""

    WHAT = "Measuring"
    KEYS = "Esc: stop, keep results · Esc again: end a worker that hangs"

    def __init__(
        self,
        comparison: Comparison,
        plan: Plan,
        make_sampler: MakeSampler,
        snapshots: Path | None,
        recovery: CrashRecovery,
    ) -> None:
        """Save the snapshot in the folder `snapshots`; None means the user's default folder."""
        super().__init__()
        self._comparison = comparison
        self._plan = plan
        self._make_sampler = make_sampler
        self._snapshots = snapshots
        self._recovery = recovery
        self._measurement: Measurement | None = None
        self._stopping = False

    def stop(self) -> None:
        """Stop after the running answers; keep what was measured."""
        self._stopping = True
        self.say(quiet("stopping"))
        if self._measurement is not None:
            self._measurement.stop()

    def end_now(self) -> None:
        """End at once, together with a worker that does not stop; keep what was measured."""
        if self._measurement is not None:
            self._measurement.end()

    @property
    def unsaved(self) -> bool:
        """Whether a measurement or conversation is unsaved (see `crash_recovery.Recoverable`)."""
        return self._recovery.unsaved(None if self.over else self._measurement)

    def save_for_recovery(self) -> Path | None:
        """Save the measurement and the conversation (see `crash_recovery.Recoverable`)."""
        return self._recovery.save_for_recovery(None if self.over else self._measurement)

    async def work(self) -> None:
        """Measure, save a snapshot, and show the result."""
        self.step(0, self._plan.total, "opening the GPU driver")
        try:
            with self._comparison.occupied():
                snapshot = await self._measured()
        except ValueError as error:  # a variant ended while the plan was shown
            self._end("Not measured", untrusted(str(error), "$error"))
            return
        if snapshot is None:
            self._end("Not measured", quiet("Stopped before the first answer was measured."))
            return
        self.say(quiet("computing confidence intervals"))
        result = await to_daemon_thread(lambda: _result(snapshot))
        self._end("Measured", await self._saved(snapshot), result)

    async def _measured(self) -> Snapshot | None:
        sampler = self._make_sampler()
        try:
            # The first sample opens the driver, which may take seconds.
            await to_daemon_thread(sampler.sample)
            measurement = Measurement(self._comparison, self._plan, sampler, self._step)
            self._measurement = measurement
            if self._stopping:
                measurement.stop()
            await measurement.run()
            if not measurement.measured:
                return None
            return record_measurement(self._comparison, sampler, measurement)
        finally:
            sampler.close()

    async def _saved(self, snapshot: Snapshot) -> Content:
        try:
            if not self._recovery.unsaved(self._measurement):
                return quiet("saved for recovery, because the program has to end")
            path = await asyncio.wrap_future(self._recovery.save(snapshot, self._measurement))
        except UserError as error:
            return untrusted(f"Not saved: {error}", "$error")
        return untrusted(f"Saved {path}", "$quiet")

    def _step(self, done: int, total: int, detail: str) -> None:
        self.step(done, total, "stopping" if self._stopping else detail)

    def _end(self, title: str, step: Content, result: RenderableType | None = None) -> None:
        self.query_one(Dialog).border_title = title
        self.say(step)
        self.end(result)


def _result(snapshot: Snapshot) -> Group:
    """Return the tables of `snapshot`. Computing intervals takes seconds: call it in a thread."""
    return terminal.renderable([*blocks(snapshot), *prompts_table(snapshot)])
