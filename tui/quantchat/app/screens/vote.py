"""The screen for blind votes: two answers without variant names, and one key for the better one.

This is a separate screen, not the comparison screen with parts hidden, so that nothing on it can
reveal the variants by mistake. It has no log, no snapshot and no copying, and it reports a failure
without saying which variant failed.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, cast

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static

from quantchat.app import terminal
from quantchat.app.crash_recovery import DISK_WAIT_S, RecoveringApp
from quantchat.app.device_watch import MakeSampler
from quantchat.app.last_sample_sampler import LastSampleSampler
from quantchat.app.widgets.answer_view import AnswerView
from quantchat.app.widgets.failure_note import explanation
from quantchat.app.widgets.stages import progress_text
from quantchat.app.widgets.text_layout import SIDES, hints, quiet, untrusted
from quantchat.daemon_thread import in_daemon_thread, to_daemon_thread, wait_for_disk
from quantchat.document.terminal import renderable
from quantchat.errors import UserError
from quantchat.features.votes import tables
from quantchat.features.votes.record import record_voting
from quantchat.features.votes.voting import Ballot, Voting
from quantchat.session.live_variant import State
from quantchat.snapshot import store
from quantchat.snapshot.schema import Snapshot
from quantchat.statistics.votes import Choice
from quantchat.text import neutralise

MAX_DRAWS_PER_SECOND = 5
_KEYS = (
    ("a", "A is better"),
    ("b", "B is better"),
    ("t", "tie"),
    ("x", "both bad"),
    ("r", "reveal"),
    ("p", "stream or wait"),
    ("Esc", "finish"),
)
_PACES = {True: "shown at the same speed", False: "shown when both are complete"}
"""Whether the answers are paced → how they are shown."""


def draw_every_s() -> float:
    """Return the seconds between two draws of the answers."""
    return 1 / min(MAX_DRAWS_PER_SECOND, terminal.pace().draws_per_second)


class VoteScreen(Screen[None]):
    """Runs `voting` and saves the votes, also if the user leaves early.

    `owns_comparison` says that the comparison exists only for this vote, so that the screen loads
    and ends its variants.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a,1", "vote('left')", show=False),
        Binding("b,2", "vote('right')", show=False),
        Binding("t,0", "vote('tie')", show=False),
        Binding("x", "vote('bad')", show=False),
        Binding("r", "reveal", show=False),
        Binding("p", "pace", show=False),
        Binding("escape", "leave", show=False),
        Binding("ctrl+q", "app.quit", show=False),
        Binding("down,j", "scroll_both(1)", show=False),
        Binding("up,k", "scroll_both(-1)", show=False),
        Binding("pagedown,space", "scroll_both(8)", show=False),
        Binding("pageup", "scroll_both(-8)", show=False),
    ]
    DEFAULT_CSS = """
    VoteScreen {
        #top, #keys { height: 1; padding: 0 1; background: $panel; }
        #asked { height: auto; max-height: 6; padding: 0 1; text-style: bold; }
        #asked { border-left: outer $quiet; margin: 1 1; }
        .side { width: 1fr; height: 1fr; padding: 0 1; }
        .side.-first { border-left: vkey $side-left; }
        .side.-second { border-left: vkey $side-right; }
        .name { height: 1; text-style: bold; }
        #loading { display: none; height: auto; margin: 1; padding: 0 1; color: $quiet; }
        #result { height: auto; padding: 1 2; }
        #results { display: none; height: 1fr; }
        &.-over #results { display: block; }
        &.-loading #loading { display: block; }
        &.-loading #asked, &.-over #asked { display: none; }
        &.-loading Horizontal, &.-over Horizontal { display: none; }
    }
    """

    def __init__(
        self,
        voting: Voting,
        snapshots: Path | None,
        make_sampler: MakeSampler,
        *,
        owns_comparison: bool,
    ) -> None:
        super().__init__()
        self.voting = voting
        self._snapshots = snapshots
        self._make_sampler = make_sampler
        self._owns_comparison = owns_comparison
        self._top = Static(id="top")
        self._loading = Static(id="loading", markup=False)
        self._asked = Static(id="asked", markup=False)
        self._names = (Static(classes="name"), Static(classes="name"))
        self._texts: tuple[AnswerView, AnswerView] = (AnswerView(), AnswerView())
        self._written = ["", ""]
        """The text shown so far, left and right."""
        self._ballot: Ballot | None = None
        self._decided = asyncio.Event()
        self._over = False
        self._writing = threading.Lock()
        self.saved: Path | None = None
        """The snapshot of the votes, once there is one."""

    def compose(self) -> ComposeResult:
        """Lay out the prompt, two answers, the keys, and the result, which is hidden at first."""
        yield self._top
        yield self._loading
        yield self._asked
        with Horizontal():
            for name, text, side in zip(
                self._names, self._texts, ("-first", "-second"), strict=True
            ):
                with VerticalScroll(classes=f"side {side}", can_focus=False):
                    yield name
                    yield text
        with VerticalScroll(id="results"):
            yield Static(id="result")
        yield Static(id="keys")

    def on_mount(self) -> None:
        """Start the session and the drawing."""
        self.set_interval(draw_every_s(), self._draw)
        self.run_worker(self._session(), exit_on_error=False)
        self._draw()

    async def on_unmount(self) -> None:
        """Save the votes; end workers that were started for this screen."""
        cast("RecoveringApp", self.app).save_work_of(self)
        if self._owns_comparison:
            await self.voting.comparison.close()

    # ------------------------------------------------------------ the session

    async def _session(self) -> None:
        comparison = self.voting.comparison
        if self._owns_comparison:
            comparison.open()
        while any(one.state is not State.READY for one in comparison.sides):
            if any(one.state is State.FAILED for one in comparison.sides):
                self._show_load_failure()
                return
            await asyncio.sleep(draw_every_s())
        try:
            with comparison.occupied():
                while not self.voting.done and not self._over:
                    await self._vote_on_next_prompt()
                await self.voting.close()
        except ValueError as error:
            self._end(untrusted(str(error), "$error"))
            return
        await self._finish()

    def _show_load_failure(self) -> None:
        """Name the variants that failed to load: without answers there is nothing to hide."""
        self._end(Content.styled("No votes: a variant could not be loaded.", "$error"))
        lines = []
        for one in self.voting.comparison.sides:
            if one.failure is not None:
                lines += [untrusted(one.label, "bold"), *explanation(one.failure), Content()]
        self.query_one("#result", Static).update(Content("\n").join(lines))

    async def _vote_on_next_prompt(self) -> None:
        self._decided.clear()
        ballot = self.voting.put()
        for number, old in enumerate(self._texts):
            fresh = AnswerView()
            await old.parent.mount(fresh)  # type: ignore[union-attr]
            await old.remove()
            self._texts = (fresh, self._texts[1]) if number == 0 else (self._texts[0], fresh)
        self._written = ["", ""]
        self._ballot = ballot
        self._asked.update(Content(neutralise(ballot.turn.prompt)))
        await self._decided.wait()

    async def _finish(self) -> None:
        if not self.voting.voted:
            self._end(quiet("No votes were given; nothing is saved."))
            return
        snapshot = await to_daemon_thread(self._record)
        try:
            await to_daemon_thread(lambda: self._save(snapshot))
            self._end(untrusted(f"Saved {self.saved}", "$quiet"))
        except UserError as error:
            self._end(untrusted(f"Not saved: {error}", "$error"))
        self.query_one("#result", Static).update(renderable(tables.blocks(snapshot)))

    def _record(self) -> Snapshot:
        """Record the votes. Opening the GPU driver may take seconds: call it in a thread."""
        sampler = self._make_sampler()
        try:
            return record_voting(self.voting, sampler)
        finally:
            sampler.close()

    def _save(self, snapshot: Snapshot) -> None:
        with self._writing:
            if self.saved is None:  # `save_for_recovery` may have saved them already
                self.saved = store.save(snapshot, self._snapshots)

    unsaved = False
    """Always False: nothing is lost when the user leaves, because the votes are always saved."""

    def save_for_recovery(self) -> Path | None:
        """Save unsaved votes when quantchat must end (see `crash_recovery.Recoverable`)."""
        if self.saved is None and self.voting.voted:
            last = record_voting(self.voting, LastSampleSampler(None))
            wait_for_disk(in_daemon_thread(lambda: self._save(last)), DISK_WAIT_S)
        return None  # nothing that the next start could offer as a recovered conversation

    def _end(self, note: Content) -> None:
        self._over = True
        self._ballot = None
        self.add_class("-over")
        self._top.update(note)
        self._draw_keys([("Esc", "close")])

    # ------------------------------------------------------------ actions

    def action_vote(self, choice: Choice) -> None:
        """Record `choice` once both answers are complete."""
        ballot = self._ballot
        if ballot is None or not ballot.turn.over or ballot.choice is not None:
            return
        if not ballot.failed:
            ballot.choice = choice
        self._decided.set()

    def action_reveal(self) -> None:
        """Show which variant is on which side; this vote is then not counted."""
        if self._ballot is not None:
            self._ballot.seen = True
            self._draw()

    def action_pace(self) -> None:
        """Switch between streaming both at the same speed and showing both when complete."""
        self.voting.paced = not self.voting.paced
        self._draw()

    def action_leave(self) -> None:
        """Finish the session and save its votes; when it is over, close the screen."""
        if self._over:
            if self._owns_comparison:
                self.app.exit()
            else:
                self.dismiss(None)
            return
        self._over = True
        if self._ballot is None:
            self._end(quiet("Ended before the first vote."))
        self._decided.set()

    def action_scroll_both(self, lines: int) -> None:
        """Scroll both answers by `lines`."""
        for side in self.query(".side"):
            side.scroll_relative(y=lines, animate=False)

    # ------------------------------------------------------------ drawing

    def _draw(self) -> None:
        if self.has_class("-over"):
            return
        voting, ballot = self.voting, self._ballot
        total = len(voting.plan.prompts)
        self.set_class(ballot is None, "-loading")
        if ballot is None:
            self._draw_loading(total)
            return
        for view, text, number in zip(
            self._texts, ballot.visible_texts(paced=voting.paced), (0, 1), strict=True
        ):
            if text.startswith(self._written[number]):
                view.write(text[len(self._written[number]) :])
            else:
                view.complete_with(text)
            self._written[number] = text
        self._draw_lines(ballot, total)

    def _draw_loading(self, total: int) -> None:
        """Show the loading stages of both variants without saying which is which."""
        sides = self.voting.comparison.sides
        loaded = sum(one.state is State.READY for one in sides)
        self._top.update(quiet(f"blind vote on {total} prompts · loading, {loaded} of 2 ready"))
        stages = sorted(progress_text(one.progress) for one in sides if one.progress is not None)
        self._loading.update(untrusted(" · ".join(dict.fromkeys(stages))))
        self._draw_keys(_KEYS[-1:])

    def _draw_keys(self, keys: Sequence[tuple[str, str]]) -> None:
        self.query_one("#keys", Static).update(hints(keys))

    def _draw_lines(self, ballot: Ballot, total: int) -> None:
        state = "both answers are complete: which one is better?"
        if ballot.failed and ballot.turn.over:
            state = "an answer failed: press a, b, t or x to continue; it is not counted"
        elif not ballot.turn.over:
            state = f"answering, {_PACES[self.voting.paced]}"
            if self.voting.paced and ballot.waits:
                state = "one answer is complete; the rest of the other appears when it ends"
        number = len(self.voting.ballots)
        self._top.update(
            Content.styled(f"prompt {number} of {total}", "bold") + quiet(f" · {state}")
        )
        for name, letter, label, colour in zip(
            self._names,
            "AB",
            (ballot.left, ballot.right),
            SIDES,
            strict=True,
        ):
            shown = Content.styled(letter, colour)
            if ballot.seen:
                shown += Content("  ") + untrusted(f"{label} (not counted)")
            name.update(shown)
        self._draw_keys(_KEYS)
