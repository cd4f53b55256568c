"""A pick on the screen: measures many variants and recommends one of them.

The screen shows the progress of each variant, a table that can be sorted, and the recommendation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import ProgressBar, Static

from quantchat.app.screens.pick_form import PickSetup
from quantchat.app.screens.progress import ProgressScreen
from quantchat.app.widgets.dialog import Dialog
from quantchat.app.widgets.stages import progress_text
from quantchat.app.widgets.text_layout import quiet, untrusted
from quantchat.checkpoints.provider import CheckpointProvider
from quantchat.daemon_thread import to_daemon_thread
from quantchat.document import terminal
from quantchat.document.document import Block, Verbatim, paragraphs, warnings
from quantchat.errors import ModelsFailed, UserError
from quantchat.features.pick import run, state
from quantchat.features.pick.frontier import scatter
from quantchat.features.pick.tables import (
    SORTED_BY,
    dropped,
    explanation,
    headline,
    limits_tables,
    live_table,
)
from quantchat.host.worker_process import StartWorker
from quantchat.session.live_variant import LiveVariant
from quantchat.snapshot import store
from quantchat.snapshot.pick import CandidateRecord, PickRecord
from quantchat.wire.messages import Progress

_DRAW_S = 0.2
"""Seconds between two redraws, because progress may be reported more often than that."""

_SORTING = "s: sort by the next column · r: reverse"


class PickScreen(ProgressScreen):
    """Runs a pick as `quantchat pick` does, saves its snapshot, and shows the recommendation."""

    WHAT = "Pick"
    KEYS = f"Esc: stop, keep results · {_SORTING}"
    BINDINGS: ClassVar[list[BindingType]] = [
        ("s", "sort", "Sort by the next column"),
        ("r", "reverse", "Reverse the order"),
    ]
    CSS = "PickScreen { .dialog { width: 100%; max-width: 150; } #headline { text-style: bold; } }"

    def __init__(
        self,
        setup: PickSetup,
        snapshots: Path | None,
        *,
        provider: CheckpointProvider,
        start: StartWorker,
    ) -> None:
        """Save the snapshot in the folder `snapshots`; None means the user's default folder."""
        super().__init__()
        self._setup = setup
        self._snapshots = snapshots
        self._provider, self._start = provider, start
        self._picking: run.Picking | None = None
        self._stopping = False
        self._record: PickRecord | None = None
        """The decision that follows from what has been measured so far."""
        self._flags: list[str] = []
        """Warnings about the measurements; filled when the pick ends."""
        self._deciding = self._outdated = False
        self._doing: dict[str, str] = {}
        """What is being done with a variant, by its label."""
        self._sorted_by, self._worst_first = "", False
        self._dirty = False

    def compose(self) -> ComposeResult:
        """Lay out the progress, the recommendation, the table, and the reasons."""
        with Dialog(f"{self.WHAT}: {self._setup.profile.name}", self.KEYS), VerticalScroll():
            yield Static(id="step")
            yield ProgressBar(show_eta=False)
            yield Static(id="headline")
            yield Static(id="table")
            yield Static(id="result")

    def on_mount(self) -> None:
        """Draw a few times a second."""
        self.set_interval(_DRAW_S, self._draw)

    # ------------------------------------------------------------ the work

    async def work(self) -> None:
        """Measure, decide, save a snapshot."""
        self.say(quiet("estimating the memory of each variant"))
        setup = self._setup
        try:
            with state.open_store(
                state.key_of(setup.profile, setup.plan), fresh=setup.fresh
            ) as results:
                await self._pick(results)
        except ModelsFailed as error:  # each variant was dropped, and the table says why
            await self._over(untrusted(str(error), "$error"))
        except UserError as error:
            self.say(untrusted(str(error), "$error"))
            self.end()

    async def _pick(self, results: state.Store) -> None:
        picking = run.Picking(
            self._setup.profile,
            self._setup.plan,
            results,
            provider=self._provider,
            start=self._start,
            on_model=self._on_model,
            on_variant=self._on_variant,
            on_step=self._on_step,
        )
        with contextlib.closing(picking):
            self._picking = picking
            if not self._stopping:
                await picking.run()
            snapshot = await to_daemon_thread(picking.snapshot)
        if not snapshot.turns:
            await self._over(quiet("Stopped before the first variant was measured."))
            return
        self._flags = snapshot.measurement.flags if snapshot.measurement else []
        path = await to_daemon_thread(lambda: store.save(snapshot, self._snapshots))
        if picking.finished:
            results.remove()
        await self._over(untrusted(f"Saved {path}", "$quiet"))

    async def _over(self, text: Content) -> None:
        """Show the final decision."""
        self._doing.clear()
        if self._picking is not None:
            picking = self._picking
            self._record = await to_daemon_thread(lambda: picking.record)
        self.say(text)
        self.end()
        self.query_one(Dialog).border_subtitle = f"Esc: close · {_SORTING}"
        self._dirty = True
        self._draw()
        if self._record is not None:
            result = terminal.renderable(_reasons(self._record, self._flags))
            self.query_one("#result", Static).update(result)

    def stop(self) -> None:
        """Stop after the running answer; keep what was measured."""
        self._stopping = True
        self.say(quiet("stopping"))
        if self._picking is not None:
            self._picking.stop()

    def end_now(self) -> None:
        """End at once, together with a worker that does not stop; keep what was measured."""
        if self._picking is not None:
            self._picking.end()

    # ------------------------------------------------------------ progress

    def _on_model(self, label: str, progress: Progress | None) -> None:
        if progress is None:
            self._doing.pop(label, None)
        else:
            self._doing = {label: progress_text(progress)}
            if not self._stopping:
                detail = f"{label}: {progress_text(progress)}, {progress.detail}".rstrip(", ")
                self.say(untrusted(detail, "$quiet"))
        self._dirty = True

    def _on_variant(self, variant: LiveVariant) -> None:
        if variant.progress is not None:
            self._on_model(variant.label, variant.progress)

    def _on_step(self) -> None:
        self._outdated = True
        if not self._deciding:
            self._deciding = True
            self.run_worker(self._decide(), exit_on_error=False)

    async def _decide(self) -> None:
        """Compute the decision so far, in a thread, because this would delay the screen."""
        while self._outdated and (picking := self._picking) is not None and not self.over:
            self._outdated = False
            record = await to_daemon_thread(lambda picking=picking: picking.record)  # type: ignore[misc]
            if not self.over:
                self._record, self._dirty = record, True
        self._deciding = False

    # ------------------------------------------------------------ drawing

    def action_sort(self) -> None:
        """Sort the candidates by the next column."""
        self._sorted_by = SORTED_BY[(SORTED_BY.index(self._sorted_by) + 1) % len(SORTED_BY)]
        self._dirty = True
        self._draw()

    def action_reverse(self) -> None:
        """Reverse the order of the candidates."""
        self._worst_first = not self._worst_first
        self._dirty = True
        self._draw()

    def _draw(self) -> None:
        if self._record is None or not self._dirty:
            return
        self._dirty = False
        record = self._record
        states = {one.label: self._state_of(one) for one in record.candidates}
        shown = live_table(record, states, self._sorted_by, worst_first=self._worst_first)
        self.query_one("#table", Static).update(terminal.renderable([shown]))
        so_far = "" if self.over or not record.recommended else "So far: "
        self.query_one("#headline", Static).update(Content(so_far + headline(record)))
        left = [one for one in record.candidates if not one.dropped]
        known = sum((one.speed is not None) + (one.kld is not None) for one in left)
        self.query_one(ProgressBar).update(total=2 * max(1, len(left)), progress=known)

    def _state_of(self, one: CandidateRecord) -> str:
        if one.label in self._doing:
            return self._doing[one.label]
        if one.dropped:
            return "dropped"
        if one.speed is not None:
            return "done" if one.kld is not None else "measured"
        waiting = "not measured" if self.over else "waiting"
        return f"scored, {waiting}" if one.kld is not None and one.kld.value else waiting


def _reasons(record: PickRecord, flags: Sequence[str]) -> list[Block]:
    """Return the reasons for the decision, and the warnings of the measurements, `flags`."""
    stopped = [record.stopped] if record.stopped else []
    parts = [*paragraphs(explanation(record)), *warnings([*stopped, *flags])]
    parts += [*limits_tables(record), *dropped(record)]
    return [*parts, *([Verbatim(drawn)] if (drawn := scatter(record)) else [])]
