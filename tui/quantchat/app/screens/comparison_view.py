"""The layout of the comparison screen, and its updates: two columns, one prompt box."""

from __future__ import annotations

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

from quantchat.app import gc_tuning, terminal
from quantchat.app.crash_recovery import DISK_WAIT_S, CrashRecovery, anything_recovered
from quantchat.app.device_watch import (
    DeviceReadings,
    DeviceWatch,
    MakeSampler,
    WorkerToMeasure,
    real_sampler,
)
from quantchat.app.messages import ComparisonChanged
from quantchat.app.prompt_history import PromptHistory
from quantchat.app.widgets.columns import Columns
from quantchat.app.widgets.device_line import DeviceLine
from quantchat.app.widgets.difference_line import DifferenceLine
from quantchat.app.widgets.divergence_line import DivergenceLine
from quantchat.app.widgets.history_line import HistoryLine
from quantchat.app.widgets.key_line import KeyLine
from quantchat.app.widgets.prompt_box import PromptBox
from quantchat.daemon_thread import in_daemon_thread, to_daemon_thread, wait_for_disk
from quantchat.document.figures import SHORT_ORDERS
from quantchat.errors import UserError
from quantchat.session.comparison import Change, Comparison, VariantChanged
from quantchat.session.conversation import Answer
from quantchat.session.live_variant import State
from quantchat.text import one_line

if TYPE_CHECKING:
    from quantchat.snapshot.schema import Snapshot
    from quantchat.system.sampler import DeviceSample

SAMPLE_EVERY_S = 1.0
CONFIRM_S = 8.0
"""Seconds in which the user can repeat a command to replace a conversation that could not be
saved."""
NARROW_CELLS = 72
"""Terminal width, in cells, below which the screen shows one variant at a time, with tabs."""
LOW_LINES, VERY_LOW_LINES = 18, 12
"""Terminal heights, in lines. Below `LOW_LINES` the live panels have one line. Below
`VERY_LOW_LINES` the live panels, the divergence line and the difference line are hidden."""
LONG_NOTICE_S = 15.0
"""Seconds that a notification with a path or a long text stays."""


class ComparisonView(Screen[None]):
    """Shows `comparison`.

    Its variants are loaded after the first frame, and its workers end when the screen is closed.
    """

    AUTO_FOCUS = "PromptBox"
    DEFAULT_CSS = """
    ComparisonView.-flat {
        LivePanel, HistoryLine, DivergenceLine, DifferenceLine { display: none; }
    }
    """

    def __init__(
        self,
        comparison: Comparison,
        snapshots: Path | None = None,
        make_sampler: MakeSampler = real_sampler,
    ) -> None:
        """Save snapshots in the folder `snapshots`; None means the user's default folder."""
        super().__init__()
        self.comparison = comparison
        self.snapshots = snapshots
        self.make_sampler = make_sampler
        self._device_line = DeviceLine(comparison.profile.name)
        self.columns = Columns(comparison)
        self._history = HistoryLine(comparison)
        self._divergence = DivergenceLine()
        self._difference = DifferenceLine()
        self.prompt = PromptBox()
        self.remembers_prompts = True
        """Whether prompts are remembered for the next start."""
        self._keys = KeyLine()
        self.device_watch: DeviceWatch | None = None
        self.recovery = CrashRecovery(comparison, snapshots)
        self.device: DeviceSample | None = None
        """The last sample of the machine."""
        self.stale = True
        """Whether the next tick must draw although nothing streams."""
        self._was_active = True
        """Whether a variant loaded or streamed at the last tick; True before the first one."""
        self._keys_busy = False
        """Whether the pair was busy when the key line was last ordered."""
        self._checked_s = 0.0
        """When the workers were last checked for silence, by the monotonic clock."""
        self._silent = False
        """Whether a worker seems to hang."""
        self._confirm_until_s = 0.0
        comparison.on_change = self._changed
        comparison.before_loss = self._save_replaced

    def compose(self) -> ComposeResult:
        """Lay the widgets out from top to bottom."""
        yield self._device_line
        yield self.columns
        yield self._history
        yield self._divergence
        yield self._difference
        yield self.prompt
        yield self._keys

    def on_mount(self) -> None:
        """Start loading after the first frame is drawn."""
        self.prompt.placeholder = Content("Ask both variants")
        self.show_order()
        self.call_after_refresh(self._begin)

    def _begin(self) -> None:
        self.comparison.open()
        self.set_interval(1 / terminal.pace().draws_per_second, self._tick)
        self.device_watch = DeviceWatch(self._measured, self.make_sampler)
        self._sample()
        self.set_interval(SAMPLE_EVERY_S, self._sample)
        self.run_worker(self._offer_recovered())
        if self.remembers_prompts:
            self.run_worker(self.prompt.use_history(PromptHistory()))

    async def _offer_recovered(self) -> None:
        if await anything_recovered(self.snapshots):
            from quantchat.app.screens.recovered import offer

            await offer(self, self.snapshots)

    def continue_chat(self, snapshot: Snapshot) -> None:
        """Continue the chat of the saved `snapshot`."""
        from quantchat.session.continuing import restore

        restore(self.comparison, snapshot)
        self.recovery.mark_saved()

    @property
    def unsaved(self) -> bool:
        """Whether the conversation is not saved (see `crash_recovery.Recoverable`)."""
        return self.recovery.unsaved()

    def save_for_recovery(self) -> Path | None:
        """Save an unsaved conversation for recovery (see `crash_recovery.Recoverable`)."""
        return self.recovery.save_for_recovery()

    def _save_replaced(self) -> None:
        """Save an unsaved conversation for recovery before it is replaced, and report the path.

        Raises UserError if it cannot be saved. If the user repeats the command within `CONFIRM_S`,
        nothing is raised and the conversation is lost.
        """
        now = time.monotonic()
        try:
            path = wait_for_disk(in_daemon_thread(self.recovery.save_for_recovery), DISK_WAIT_S)
        except UserError as error:
            if now < self._confirm_until_s:
                self._confirm_until_s = 0.0
                return
            self._confirm_until_s = now + CONFIRM_S
            raise UserError(
                f"The conversation cannot be saved: {error}. Press the key again to discard it"
            ) from error
        if path is not None:
            self.say(str(path), title="Saved the unsaved conversation for recovery")

    async def on_unmount(self) -> None:
        """End the workers."""
        if self.device_watch is not None:
            self.device_watch.close()
        await self.comparison.close()

    def on_resize(self, event: Resize) -> None:
        """Show tabs on a narrow terminal; adapt the height of the strip charts, 0 to 3 lines."""
        width, height = event.size
        heights = ((LOW_LINES, 0), (34, 1), (46, 2))
        self.columns.fit(
            tabs=width < NARROW_CELLS,
            strip_height=next((strip for below, strip in heights if height < below), 3),
        )
        self.set_class(height < VERY_LOW_LINES, "-flat")
        self.stale = True

    # ------------------------------------------------------------ what changes by itself

    async def _tick(self) -> None:
        """Draw what arrived since the last tick; do nothing if nothing is active or stale."""
        comparison = self.comparison
        active = comparison.busy or any(
            variant.state in (State.PREPARING, State.LOADING) for variant in comparison.sides
        )
        if self._was_active and not active:
            gc_tuning.collect_while_idle()
        self._was_active = active
        if comparison.busy != self._keys_busy:
            self._order_keys()  # the comparison reports no change when a measurement or vote ends
        if not (active or self.stale):
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
        self._history.observe()
        self._divergence.observe(comparison.last_turn, (left.variant.label, right.variant.label))

    def last_answers(self) -> tuple[Answer | None, Answer | None]:
        """The left and right answers to the last prompt; None where there is none."""
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
        self._order_keys()
        self._sample()
        self.stale = True

    def _order_keys(self) -> None:
        """Let the key line begin with the commands that matter in the current state."""
        self._keys_busy = self.comparison.busy
        last = [answer for answer in self.last_answers() if answer is not None]
        if self._silent:
            self._keys.put_first("reload", "log")
        elif self.comparison.busy:
            self._keys.put_first("stop")
        elif any(variant.state is State.FAILED for variant in self.comparison.sides):
            self._keys.put_first("reload", "log")
        elif any(answer.context_full for answer in last):
            self._keys.put_first("remove_oldest", "new_chat")
        else:
            self._keys.put_first()

    def show_order(self) -> None:
        """Show in the key line how the next prompt will run."""
        self._keys.relabel("order", SHORT_ORDERS[self.comparison.order])

    def _sample(self) -> None:
        now = time.monotonic()
        # After this process was suspended, all workers seem silent: skip one check.
        if now - self._checked_s < 5 * SAMPLE_EVERY_S:
            silent = [column.show_hang(now) for column in self.columns.pair]
            if any(silent) != self._silent:
                self._silent = any(silent)
                self._order_keys()
        self._checked_s = now
        if self.device_watch is not None:
            self.device_watch.request(
                {
                    variant.label: WorkerToMeasure(variant.pid, variant.ledger)
                    for variant in self.comparison.sides
                    if variant.pid is not None and variant.ledger is not None
                }
            )

    def _measured(self, measured: DeviceReadings) -> None:
        if self.device is None:  # the first sample: the pair does not use the device's memory yet
            self.run_worker(self._warn_if_too_large(measured.device), exit_on_error=False)
        self.device = measured.device
        self.recovery.measured = measured
        self._device_line.show(measured.device)
        for column in self.columns.pair:
            found = measured.workers.get(column.variant.label)
            if found is not None:
                worker, memory = found
                column.memory.add(measured.device.at_s, worker.pid, worker.ledger, memory)
        self.stale = True

    def unknown_figures(self) -> list[tuple[str, str]]:
        """Return (figure, reason) for each figure shown as "–"; empty before the first sample."""
        from quantchat.system.unknown_figures import unknown_figures

        if self.device is None:
            return []
        workers = [(one.variant.label, one.memory.latest) for one in self.columns.pair]
        return unknown_figures(self.device, workers)

    async def _warn_if_too_large(self, sample: DeviceSample) -> None:
        """Warn if the memory estimate of `quantchat plan` does not fit on the device."""
        from quantchat.measuring import memory_plan

        profile, pair = self.comparison.profile, self.comparison.pair
        found = await to_daemon_thread(lambda: memory_plan.warning(profile, sample, pair))
        if found:
            self.say(
                found, title="The two variants may not fit", severity="warning", s=LONG_NOTICE_S
            )

    async def fitting(self, left: int, right: int) -> int:
        """Return how many variants fit into memory together.

        They are counted in this order: `left`, `right`, then the most recently shown ones.
        """
        from quantchat.measuring.keep_loaded import loadable_count

        comparison, sample = self.comparison, self.device
        ledgers = {i: one.ledger for i, one in enumerate(comparison.variants) if one.ledger}
        if sample is None or not ledgers.keys() - {left, right}:
            return 2
        order = comparison.recent_with(left, right)
        return await to_daemon_thread(
            lambda: loadable_count(comparison.profile, sample, order, ledgers)
        )

    # ------------------------------------------------------------ notifications

    @contextlib.contextmanager
    def errors_as_notifications(self) -> Iterator[None]:
        """Show ValueError and UserError of a command as a notification."""
        try:
            yield
        except (ValueError, UserError) as error:
            self.say(str(error), severity="warning")

    def say(
        self, text: str, *, title: str = "", severity: SeverityLevel = "information", s: float = 6
    ) -> None:
        """Show `text` as a notification for `s` seconds."""
        self.notify(one_line(text), title=title, severity=severity, timeout=s, markup=False)
