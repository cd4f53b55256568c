"""The comparison as it is drawn: two columns, one prompt, and what changes by itself."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from textual import on
from textual.app import ComposeResult
from textual.content import Content
from textual.events import Resize
from textual.notifications import SeverityLevel
from textual.screen import Screen

from quantchat.app import collector, terminal
from quantchat.app.crash_recovery import CrashRecovery
from quantchat.app.device_watch import (
    DeviceWatch,
    MakeSampler,
    Measured,
    WorkerToMeasure,
    real_sampler,
)
from quantchat.app.messages import ComparisonChanged
from quantchat.app.widgets.columns import Columns
from quantchat.app.widgets.device_line import DeviceLine
from quantchat.app.widgets.difference_line import DifferenceLine
from quantchat.app.widgets.divergence_line import DivergenceLine
from quantchat.app.widgets.key_line import KeyLine
from quantchat.app.widgets.prompt_box import PromptBox
from quantchat.app.widgets.text_layout import ORDERS
from quantchat.errors import UserError
from quantchat.session.comparison import Change, Comparison, VariantChanged
from quantchat.session.conversation import Answer
from quantchat.session.live_variant import State
from quantchat.text import one_line

if TYPE_CHECKING:
    from quantchat.system.sampler import DeviceSample

SAMPLE_EVERY_S = 1.0
ASKED_S = 8.0
"""How long it is remembered that a conversation which cannot be kept was about to be replaced."""
NARROW = 72
"""Below this many columns of the terminal there is one column of ours, with tabs."""
LOW, FLAT = 18, 12
"""Below so many lines the figures give way to the answers; then what compares the two does too."""
LONG_S = 15.0
"""Seconds a notification stays that is to be read at leisure, or copied from."""


class ComparisonView(Screen[None]):
    """Shows `comparison`: loads it once it is on the screen, ends its workers when it goes."""

    AUTO_FOCUS = "PromptBox"
    DEFAULT_CSS = """
    ComparisonView.-low LivePanel { display: none; }
    ComparisonView.-flat {
        DivergenceLine, DifferenceLine { display: none; }
    }
    """

    def __init__(
        self,
        comparison: Comparison,
        snapshots: Path | None = None,
        make_sampler: MakeSampler = real_sampler,
    ) -> None:
        """`snapshots` is the folder to save into, None for the user's own."""
        super().__init__()
        self.comparison = comparison
        self.snapshots = snapshots
        self.make_sampler = make_sampler
        self._device_line = DeviceLine(comparison.profile.name)
        self.columns = Columns(comparison)
        self._divergence = DivergenceLine()
        self._difference = DifferenceLine()
        self.prompt = PromptBox()
        self._keys = KeyLine()
        self.device_watch: DeviceWatch | None = None
        self.recovery = CrashRecovery(comparison, snapshots)
        self.device: DeviceSample | None = None
        """The machine as it was last seen."""
        self.stale = True
        self._at_work = True
        """Whether something loaded or streamed at the last tick, or there was none yet."""
        self._pointed_busy = False
        """Whether the pair was busy when the key line was last put in order."""
        self._looked_s = 0.0
        """When the workers were last looked at, by the monotonic clock."""
        self._silent = False
        """Whether one of them seems to hang."""
        self._asked_until_s = 0.0
        comparison.on_change = self._changed
        comparison.before_loss = self._keep_replaced

    def compose(self) -> ComposeResult:
        """From top to bottom."""
        yield self._device_line
        yield self.columns
        yield self._divergence
        yield self._difference
        yield self.prompt
        yield self._keys

    def on_mount(self) -> None:
        """Draw the first frame, then begin to load."""
        self.prompt.placeholder = Content("Ask both variants")
        self.name_order()
        self.call_after_refresh(self._begin)

    def _begin(self) -> None:
        self.comparison.open()
        self.set_interval(1 / terminal.pace().draws_per_second, self._tick)
        self.device_watch = DeviceWatch(self._measured, self.make_sampler)
        self._sample()
        self.set_interval(SAMPLE_EVERY_S, self._sample)
        self.run_worker(self._offer_recovered())

    async def _offer_recovered(self) -> None:
        if await asyncio.to_thread(_anything_recovered, self.snapshots):
            from quantchat.app.screens.recovered import offer

            offer(self, self.snapshots)

    @property
    def unsaved(self) -> bool:
        """Whether something was said that nobody saved (see `keeping.Recoverable`)."""
        return self.recovery.unsaved()

    def keep(self) -> Path | None:
        """Keep what nobody saved (see `keeping.Recoverable`)."""
        return self.recovery.keep()

    def _keep_replaced(self) -> None:
        """Keep what nobody saved and what is about to be replaced, and say where.

        Raises UserError where it cannot be kept; the second time within `ASKED_S` it gives way.
        """
        now = time.monotonic()
        try:
            path = self.recovery.keep()
        except UserError as error:
            if now < self._asked_until_s:
                self._asked_until_s = 0.0
                return
            self._asked_until_s = now + ASKED_S
            raise UserError(f"not done: {error}; the same again does it and loses that") from error
        if path is not None:
            self.say(str(path), title="Kept what nobody had saved")

    async def on_unmount(self) -> None:
        """Leave no worker behind."""
        if self.device_watch is not None:
            self.device_watch.close()
        await self.comparison.close()

    def on_resize(self, event: Resize) -> None:
        """Tabs on a narrow terminal, taller strips on a high one, no figures on a low one."""
        width, height = event.size
        self.columns.fit(
            tabs=width < NARROW, strip_height=1 if height < 34 else 2 if height < 46 else 3
        )
        self.set_class(height < LOW, "-low")
        self.set_class(height < FLAT, "-flat")
        self.stale = True

    # ------------------------------------------------------------ what changes by itself

    async def _tick(self) -> None:
        """Draw what came since the last tick; on a quiet screen nothing is done."""
        comparison = self.comparison
        at_work = comparison.busy or any(
            variant.state in (State.PREPARING, State.LOADING) for variant in comparison.sides
        )
        if self._at_work and not at_work:
            collector.settle()
        self._at_work = at_work
        if comparison.busy != self._pointed_busy:
            self._point_at_keys()  # what else occupied the pair ends without a change
        if not (at_work or self.stale):
            return
        self.stale = False
        await self.columns.tick()
        pair = self.columns.pair
        if len(pair) < 2:
            return
        left, right = pair
        self._difference.observe(
            (left.variant, right.variant), self.last_answers(), (left.memory, right.memory)
        )
        self._divergence.observe(comparison.last_turn, (left.variant.label, right.variant.label))

    def last_answers(self) -> tuple[Answer | None, Answer | None]:
        """The answers to the last prompt, left and right, as far as there are any."""
        turn = self.comparison.last_turn
        left, right = self.comparison.sides
        return (
            (turn.answers.get(left.label), turn.answers.get(right.label)) if turn else (None, None)
        )

    def _changed(self, change: Change) -> None:
        self.post_message(ComparisonChanged(change))

    @on(ComparisonChanged)
    async def _follow_change(self, event: ComparisonChanged) -> None:
        change = event.change
        if isinstance(change, VariantChanged):
            self.columns.show_state(change.variant)
        else:
            await self.columns.sync()
        self._point_at_keys()
        self._sample()
        self.stale = True

    def _point_at_keys(self) -> None:
        """Let the key line begin with what the moment asks for."""
        self._pointed_busy = self.comparison.busy
        last = [answer for answer in self.last_answers() if answer is not None]
        if self._silent:
            self._keys.put_first("retry", "log")
        elif self.comparison.busy:
            self._keys.put_first("stop")
        elif any(variant.state is State.FAILED for variant in self.comparison.sides):
            self._keys.put_first("retry", "log")
        elif any(answer.context_full for answer in last):
            self._keys.put_first("forget", "new_chat")
        else:
            self._keys.put_first()

    def name_order(self) -> None:
        """Let the key line say how the next prompt runs."""
        self._keys.call("order", ORDERS[self.comparison.order])

    def _sample(self) -> None:
        now = time.monotonic()
        # After a pause of our own (the program was suspended, say) all workers seem silent.
        if now - self._looked_s < 5 * SAMPLE_EVERY_S:
            silent = [column.show_silence(now) for column in self.columns.pair]
            if any(silent) != self._silent:
                self._silent = any(silent)
                self._point_at_keys()
        self._looked_s = now
        if self.device_watch is not None:
            self.device_watch.ask(
                {
                    variant.label: WorkerToMeasure(variant.pid, variant.ledger)
                    for variant in self.comparison.sides
                    if variant.pid is not None and variant.ledger is not None
                }
            )

    def _measured(self, measured: Measured) -> None:
        if self.device is None:  # the pair has only begun to load: what is held is others'
            self.run_worker(self._warn_of_plan(measured.device), exit_on_error=False)
        self.device = measured.device
        self.recovery.measured = measured
        self._device_line.show(measured.device)
        for column in self.columns.pair:
            found = measured.workers.get(column.variant.label)
            if found is not None:
                worker, memory = found
                column.memory.note(measured.device.at_s, worker.pid, worker.ledger, memory)
        self.stale = True

    def unknown_figures(self) -> list[tuple[str, str]]:
        """What is shown as "–" for lack of a reading, and why; empty before the first one."""
        from quantchat.system.unknown_figures import unknown_figures

        if self.device is None:
            return []
        workers = [(one.variant.label, one.memory.latest) for one in self.columns.pair]
        return unknown_figures(self.device, workers)

    async def _warn_of_plan(self, sample: DeviceSample) -> None:
        """Say it before the memory runs out, in the figures of `quantchat plan`."""
        from quantchat.features.memory_plan import plan

        comparison = self.comparison
        found = await asyncio.to_thread(plan.warning, comparison.profile, sample, comparison.pair)
        if found:
            self.say(found, title="The pair may not fit", severity="warning", s=LONG_S)

    # ------------------------------------------------------------ saying

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Show as a notification what the comparison will not do now, and why."""
        try:
            yield
        except (ValueError, UserError) as error:
            self.say(str(error), severity="warning")

    def say(
        self, text: str, *, title: str = "", severity: SeverityLevel = "information", s: float = 6
    ) -> None:
        """Show `text` for `s` seconds."""
        self.notify(one_line(text), title=title, severity=severity, timeout=s, markup=False)


def _anything_recovered(snapshots: Path | None) -> bool:
    # To import the schema of snapshots takes longer than a frame may.
    from quantchat.snapshot import recovered

    return bool(recovered.waiting(snapshots))
