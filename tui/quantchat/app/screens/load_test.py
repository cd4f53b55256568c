"""A load test on the screen: a throughput bar for each load level, updated after each round.

A load level is a number of requests at once, a request rate, or the size of a batch.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import ProgressBar, Static

from quantchat.app.screens.load_test_form import LoadTestSetup
from quantchat.app.screens.progress import ProgressScreen
from quantchat.app.widgets.dialog import Dialog
from quantchat.app.widgets.stages import progress_text
from quantchat.app.widgets.strip_chart import bar, ceiling
from quantchat.app.widgets.text_layout import quiet, untrusted
from quantchat.checkpoints.provider import CheckpointProvider
from quantchat.daemon_thread import to_daemon_thread
from quantchat.document import terminal
from quantchat.document.figures import milliseconds, number
from quantchat.errors import ModelsFailed, UserError
from quantchat.features.load_test.run import LoadTest
from quantchat.features.load_test.tables import blocks
from quantchat.host.worker_process import StartWorker
from quantchat.paths import temporary_dir
from quantchat.session.model_jobs import ModelJobs, no_result
from quantchat.snapshot import store
from quantchat.snapshot.load_test import LoadTestedRecord, LoadTestRecord, Point, points
from quantchat.system.sampler import DeviceSampler
from quantchat.wire.jobs import LoadTestProgress
from quantchat.wire.messages import Progress

_READ_S = 0.5
"""Seconds between two reads of the results of finished rounds."""


class LoadTestScreen(ProgressScreen):
    """Runs a load test as `quantchat load` does, and saves its snapshot."""

    WHAT = "Load test"
    KEYS = "Esc: stop, keep finished rounds"
    CSS = "LoadTestScreen .dialog { width: 100%; max-width: 150; }"

    def __init__(
        self,
        setup: LoadTestSetup,
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
        self._test: LoadTest | None = None
        self._measuring: asyncio.Task[None] | None = None
        self._stopping = self._reading = False

    def compose(self) -> ComposeResult:
        """Lay out the progress, the bars, and the tables of the result."""
        with Dialog(f"{self.WHAT}: {self._setup.profile.name}", self.KEYS), VerticalScroll():
            yield Static(id="step")
            yield ProgressBar(show_eta=True)
            yield Static(id="bars")
            yield Static(id="result")

    def on_mount(self) -> None:
        """Update the bars at intervals while the test runs."""
        self.set_interval(_READ_S, self._draw_finished_rounds)

    # ------------------------------------------------------------ the work

    async def work(self) -> None:
        """Put the load on the variants, save a snapshot, show the tables."""
        sampler = DeviceSampler()
        try:
            with tempfile.TemporaryDirectory(prefix="quantchat-", dir=temporary_dir()) as scratch:
                profile = self._setup.profile
                jobs = ModelJobs(self._provider, self._start, self._on_model, profile.generation)
                test = LoadTest(profile, self._setup.plan, Path(scratch), jobs, sampler)
                self._test = test
                await self._run(test)
            await self._save(test)
        except (ModelsFailed, UserError, OSError) as error:
            self.query_one("#bars", Static).update("")
            self.say(untrusted(str(error), "$error"))
            self.end()
        finally:
            sampler.close()

    async def _run(self, test: LoadTest) -> None:
        self._measuring = asyncio.ensure_future(test.run())
        if self._stopping:
            self._measuring.cancel()
        try:
            await self._measuring
        except asyncio.CancelledError:
            if not self._stopping:  # the user has not stopped the test: quantchat ends
                raise

    async def _save(self, test: LoadTest) -> None:
        snapshot = await to_daemon_thread(test.snapshot)
        if snapshot is None:
            if not self._stopping:
                raise no_result(test.record.models, stopped=False)
            self.say(quiet("Stopped before the first round was finished."))
            self.end()
            return
        path = await to_daemon_thread(lambda: store.save(snapshot, self._snapshots))
        found = test.record
        result = await to_daemon_thread(lambda: terminal.renderable(blocks(found)))
        self.say(untrusted(f"Saved {path}", "$quiet"))
        self._draw(found, None)
        self.end(result)

    def stop(self) -> None:
        """Stop at once; finished rounds are kept."""
        self._stopping = True
        self.say(quiet("stopping"))
        if self._measuring is not None:
            self._measuring.cancel()

    def end_now(self) -> None:
        """Do nothing at the second Esc: `stop` has cancelled the test, which kills its worker."""

    # ------------------------------------------------------------ drawing

    def _on_model(self, label: str, progress: Progress | None) -> None:
        if progress is not None and not self._stopping and not self.over:
            self.step(progress.done, progress.total, f"{label}: {progress_text(progress)}")

    async def _draw_finished_rounds(self) -> None:
        """Read the finished rounds in a thread, and draw them."""
        if self._test is None or self._reading or self.over:
            return
        self._reading, test = True, self._test
        try:
            found, now = await to_daemon_thread(lambda: (test.record, test.now))
        finally:
            self._reading = False
        if not self.over:
            self._draw(found, now)

    def _draw(self, record: LoadTestRecord, now: LoadTestProgress | None) -> None:
        lines = list(_lines(record, now, self.query_one("#bars").size.width))
        self.query_one("#bars", Static).update(Content("\n").join(lines))


def _lines(record: LoadTestRecord, now: LoadTestProgress | None, width: int) -> Iterator[Content]:
    """Yield a line for each variant, followed by a line with a bar for each of its load levels."""
    by_model = [(model, points(record, model)) for model in record.models]
    values = [p.figures.output_tps.value for _, got in by_model for p in got if p.figures]
    top = ceiling(max([*values, _live(now)], default=0.0))
    cells = max(8, min(40, width - 54))
    # While the test runs, the variant that is measured comes first in `undone`.
    running = record.undone[0] if record.undone and now is not None else ""
    measured = {model.label: (model, its) for model, its in by_model}
    for label in dict.fromkeys([*measured, *record.undone]):
        waits = label not in measured and label != running
        yield untrusted(label, "bold") + quiet("  waiting" if waits else "")
        if label in measured:
            model, its = measured[label]
            for point in its:
                yield _level_line(point, model, top, cells)
        if label == running and now is not None:
            yield _now_line(now, record, top, cells)


def _level_line(point: Point, model: LoadTestedRecord, top: float, cells: int) -> Content:
    at = point.figures
    name = f"{point.name:>8} "
    if at is None:
        return quiet(name) + Content.styled("failed", "$error")
    tps = at.output_tps
    half = "" if tps.low is None or tps.high is None else f" ±{number((tps.high - tps.low) / 2)}"
    text = f" {number(tps.value)}{half} tok/s"
    if at.ttft_ms is not None:
        text += f"  TTFT p95 {milliseconds(at.ttft_ms.p95)}"
    share = tps.value / top if top else 0.0
    line = quiet(name) + Content.styled(bar(share, cells), "$primary on $panel") + Content(text)
    if model.batches:
        return line
    return line + Content.styled(f"  {at.failed} failed", "$error" if at.failed else "$quiet")


def _live(now: LoadTestProgress | None) -> float:
    """Return the output tokens per second of the running round, from the requests answered."""
    return now.output_tokens / now.seconds if now and now.seconds > 0 else 0.0


def _now_line(now: LoadTestProgress, record: LoadTestRecord, top: float, cells: int) -> Content:
    """Return the line of the running round: its throughput so far and the counts of requests."""
    level = record.levels[now.level]
    name = f"{Point(level, [], [], '').name:>7}▸ "
    live = _live(now)
    drawn = Content.styled(bar(live / top if top else 0.0, cells), "$warning on $panel")
    text = f" {number(live)} tok/s  {now.in_flight} in flight, {now.answered} of {now.total}"
    line = quiet(name) + drawn + Content(f"{text}{' warm-up' if now.warm_up else ''}")
    return line + Content.styled(f", {now.failed} failed", "$error" if now.failed else "$quiet")
