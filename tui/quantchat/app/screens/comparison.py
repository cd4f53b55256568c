"""The comparison screen: one action for each command."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.binding import BindingType

from quantchat.app import clipboard, outputs
from quantchat.app.commands import COMMANDS, command
from quantchat.app.messages import (
    CommandChosen,
    ComparisonChanged,
    LinkClicked,
    PromptSent,
    ScrollRequested,
)
from quantchat.app.screens.comparison_view import LONG_NOTICE_S, ComparisonView
from quantchat.app.textual_workarounds import write_to_terminal
from quantchat.app.widgets.history_line import history_text
from quantchat.daemon_thread import in_daemon_thread
from quantchat.document.figures import plural
from quantchat.profile.model import Generation
from quantchat.session.conversation import History
from quantchat.session.live_variant import State
from quantchat.session.recommended import recommendations

if TYPE_CHECKING:
    from concurrent.futures import Future
    from pathlib import Path

    from quantchat.measuring.rounds import Plan


class ComparisonScreen(ComparisonView):
    """Runs the commands of `COMMANDS` on the comparison."""

    BINDINGS: ClassVar[list[BindingType]] = [
        one.binding() for one in COMMANDS if not one.in_prompt and one.group != "Program"
    ]
    plan_when_ready: Plan | None = None
    """What to measure as soon as both variants are ready."""
    _draft: str | None = None
    """The user's draft while the last prompt is being edited; None while no prompt is edited."""

    # ------------------------------------------------------------ prompt and conversation

    @on(PromptSent)
    def _send(self, event: PromptSent) -> None:
        sent = False
        with self.errors_as_notifications():
            if self._draft is not None:
                self.comparison.replace_last(event.text)
            else:
                self.comparison.ask(event.text)
            sent = True
        if sent:
            self._end_editing()
            self.prompt.remember(event.text)
        else:
            self.prompt.give_back(event.text)

    @on(ScrollRequested)
    def _scroll(self, event: ScrollRequested) -> None:
        self.columns.scroll_pages(event.pages)
        self.stale = True

    def action_stop(self) -> None:
        """Stop both answers; else take back a queued prompt; else cancel editing."""
        if self.comparison.busy:
            self.comparison.stop()
        elif self.comparison.queued:
            prompt = self.comparison.take_back()
            if prompt is not None:
                self.prompt.give_back(prompt)
        elif self._draft is not None:
            self.prompt.set_text(self._draft)
            self._end_editing()

    def action_order(self) -> None:
        """Switch between together and one at a time, from the next prompt on."""
        self.comparison.order = "in-turn" if self.comparison.order == "together" else "together"
        self.show_order()

    def action_history(self) -> None:
        """Switch whose answers the next prompt continues."""
        histories: tuple[History, ...] = ("own", "left", "right")
        at = histories.index(self.comparison.history)
        self.comparison.history = histories[(at + 1) % len(histories)]
        self.say(f"From the next prompt on: {history_text(self.comparison)}.")
        self.stale = True

    def action_ask_file(self) -> None:
        """Send the prompts of a file, one after another."""
        from quantchat.app.screens.ask_file import AskFileScreen

        def send(prompts: tuple[str, ...] | None) -> None:
            if prompts is not None:
                with self.errors_as_notifications():
                    self.comparison.ask_all(prompts)
                    key = command("stop").key
                    self.say(f"Sending {plural(len(prompts), 'prompt')}. {key} stops.")

        self.app.push_screen(AskFileScreen(), send)

    def action_ask_missing(self) -> None:
        """Send each side the prompts that it missed."""
        with self.errors_as_notifications():
            count = self.comparison.ask_missing()
            self.say(
                f"Asking {plural(count, 'missing answer')}." if count else "No answer is missing."
            )
            self.stale = True

    def action_earlier_answers(self) -> None:
        """Show the next older answers to the last prompt."""
        self._show_version(-1)

    def action_later_answers(self) -> None:
        """Show the next newer answers to the last prompt."""
        self._show_version(1)

    def _show_version(self, step: int) -> None:
        with self.errors_as_notifications():
            if not self.comparison.show_version(step):
                where = "earlier" if step < 0 else "later"
                self.say(f"The last prompt has no {where} answers.", severity="warning")
            self.stale = True

    def action_regenerate(self) -> None:
        """Regenerate the last answers."""
        with self.errors_as_notifications():
            self.comparison.replace_last()

    def action_edit(self) -> None:
        """Put the last prompt into the box; sending it replaces the last turn."""
        last = self.comparison.last_turn
        if last is None:
            self.say("There is no prompt to edit yet.", severity="warning")
            return
        if self._draft is None:
            self._draft = self.prompt.text
        self.prompt.add_class("-editing")
        self.prompt.set_text(last.prompt)
        self.say(f"Enter replaces the last turn. {command('stop').key} cancels.")

    def _end_editing(self) -> None:
        self._draft = None
        self.prompt.remove_class("-editing")

    def action_new_chat(self) -> None:
        """Start a new chat."""
        with self.errors_as_notifications():
            self.comparison.new_chat()
            self._end_editing()

    def action_remove_oldest(self) -> None:
        """Remove the oldest turn from the conversation."""
        with self.errors_as_notifications():
            self.comparison.remove_oldest()

    def action_settings(self) -> None:
        """Edit the system prompt and the sampling settings."""
        from quantchat.app.screens.settings import SettingsScreen

        def done(generation: Generation | None) -> None:
            if generation is not None:
                self.comparison.set_generation(generation)
                self.say("The settings apply from the next prompt on.")

        self.app.push_screen(
            SettingsScreen(self.comparison.generation, recommendations(self.comparison.sides)), done
        )

    # ------------------------------------------------------------ columns

    def action_maximise(self) -> None:
        """Show the left column alone, the right one alone, or both."""
        self.columns.maximise()

    async def action_swap(self) -> None:
        """Swap the columns."""
        self.comparison.swap()
        await self.columns.show_pair()
        self.stale = True

    async def action_thoughts(self) -> None:
        """Open or fold the thoughts."""
        await self.columns.toggle_thoughts()
        self.stale = True

    async def action_prompts(self) -> None:
        """Show long prompts whole, or fold them."""
        await self.columns.toggle_prompts()
        self.stale = True

    async def action_raw(self) -> None:
        """Show the left outputs raw, the right ones, both, or none."""
        left, right = await self.columns.next_raw()
        which = {(True, True): "Both sides", (True, False): "The left side"}.get(
            (left, right), "The right side" if right else ""
        )
        self.say(f"{which}: raw output." if which else "Outputs are rendered as Markdown.", s=3)
        self.stale = True

    def action_pair(self) -> None:
        """Choose which two variants to show."""
        from quantchat.app.screens.pair import PairScreen

        async def done(pair: tuple[int, int] | None) -> None:
            if pair is not None:
                with self.errors_as_notifications():
                    self.comparison.choose_pair(*pair, fitting=await self.fitting(*pair))
                    await self.columns.show_pair()
                    self.stale = True

        self.app.push_screen(PairScreen(self.comparison), done)

    def action_reload(self) -> None:
        """Reload each variant that failed or does not respond."""
        now = time.monotonic()
        troubled = [
            variant
            for variant in self.comparison.sides
            if variant.state is State.FAILED or variant.suspected_hang(now) is not None
        ]
        if not troubled:
            self.say("Nothing to reload: no variant failed or hangs.", severity="warning")
        for variant in troubled:
            variant.retry()

    def action_follow(self) -> None:
        """Follow the end of the conversation, or stop following it."""
        follows = self.columns.toggle_follow()
        self.say("Following new text." if follows else "Not following new text.", s=2)
        self.stale = True

    def action_divergence(self) -> None:
        """Scroll to the first differing token of the newest two greedy answers that differ."""
        if not self.columns.to_divergence():
            self.say("No two greedy answers diverge in this conversation.", severity="warning")
        self.stale = True

    # ------------------------------------------------------------ output

    def action_copy_left(self) -> None:
        """Copy the left answer."""
        self._copy(0)

    def action_copy_right(self) -> None:
        """Copy the right answer."""
        self._copy(1)

    def _copy(self, side: int) -> None:
        answer = self.last_answers()[side]
        if answer is None or not answer.text:
            self.say("There is no answer to copy yet.", severity="warning")
            return
        copied = clipboard.copy(answer.text, write_to_terminal(self.app))
        tail = "" if copied.sure else f". {command('save_answers').key} saves it to a file."
        self.say(
            f"{answer.variant}: {len(answer.text)} characters {copied.how}{tail}", s=LONG_NOTICE_S
        )

    def action_save_answers(self) -> None:
        """Save the last answers to a text file."""
        turn = self.comparison.last_turn
        if turn is None:
            self.say("There is no answer to save yet.", severity="warning")
            return
        text = outputs.answers_as_markdown(turn, self.comparison)
        self._report_saved(
            "Answers saved", in_daemon_thread(partial(outputs.save_answers, text, self.snapshots))
        )

    def action_export_chat(self) -> None:
        """Save the whole conversation to a Markdown file."""
        if not self.comparison.conversation.turns:
            self.say("There is no conversation to save yet.", severity="warning")
            return
        with self.errors_as_notifications():
            path = outputs.save_chat(self.comparison, self.snapshots)
            self.say(str(path), title="Chat saved", s=LONG_NOTICE_S)

    def action_diff(self) -> None:
        """Show the difference of the last two answers."""
        from quantchat.app.screens.diff import DiffScreen

        left, right = self.last_answers()
        if left is None or right is None or not (left.text and right.text):
            self.say("The last prompt does not have two answers to compare.", severity="warning")
            return
        self.app.push_screen(DiffScreen(left, right))

    def action_search(self) -> None:
        """Search the conversation."""
        from quantchat.app.screens.search import SearchHit, SearchScreen

        async def go(place: SearchHit | None) -> None:
            if place is not None:
                await self.columns.to_turn(place.turn, place.text)
                self.stale = True

        self.app.push_screen(SearchScreen(self.comparison.conversation), go)

    def action_measure(self) -> None:
        """Measure the pair in rounds."""
        from quantchat.app.screens.measure_plan import MeasurePlanScreen

        with self.errors_as_notifications():
            self.comparison.require_idle_pair()
            self.app.push_screen(MeasurePlanScreen(self.comparison), self._begin_measuring)

    def _begin_measuring(self, plan: Plan | None) -> None:
        from quantchat.app.screens.measure import MeasuringScreen

        if plan is not None:
            self.app.push_screen(
                MeasuringScreen(
                    self.comparison, plan, self.make_sampler, self.snapshots, self.recovery
                )
            )

    @on(ComparisonChanged)
    def _measure_when_ready(self) -> None:
        """Start the measurement for which this screen was opened, unless a variant failed."""
        states = [variant.state for variant in self.comparison.sides]
        if self.plan_when_ready is None or not set(states) <= {State.READY, State.FAILED}:
            return
        plan, self.plan_when_ready = self.plan_when_ready, None
        if State.FAILED in states:
            self.say("A variant failed: nothing is measured.", severity="warning")
        else:
            self._begin_measuring(plan)

    def action_cross_perplexity(self) -> None:
        """Show the perplexity of each answer under both variants."""
        from quantchat.app.screens.cross_perplexity import CrossPerplexityScreen

        turn = self.comparison.last_turn
        with self.errors_as_notifications():
            self.comparison.require_idle_pair()
            if turn is None or sum(bool(answer.ids) for answer in turn.answers.values()) < 2:
                raise ValueError("cross-perplexity needs an answer of each variant: send a prompt")
            self.app.push_screen(CrossPerplexityScreen(self.comparison, turn))

    def action_agreement(self) -> None:
        """Compare each variant with itself."""
        from quantchat.app.screens.agreement import AgreementScreen

        with self.errors_as_notifications():
            self.comparison.require_idle_pair()
            self.app.push_screen(AgreementScreen(self.comparison, self._prompts()))

    def _prompts(self) -> tuple[str, ...]:
        """The prompts of this conversation; without any, the prompts of the profile."""
        from quantchat.session import prompts

        own_prompts = dict.fromkeys(turn.prompt for turn in self.comparison.conversation.turns)
        return tuple(own_prompts) or prompts.of_profile(self.comparison.profile.run)

    def action_vote_blind(self) -> None:
        """Vote blind on the prompts of this conversation; without any, on the profile's."""
        import secrets

        from quantchat.app.screens.vote import VoteScreen
        from quantchat.features.votes.voting import VotePlan, Voting

        with self.errors_as_notifications():
            self.comparison.require_idle_pair()
            voting = Voting(self.comparison, VotePlan(self._prompts(), secrets.randbits(32)))
            screen = VoteScreen(voting, self.snapshots, self.make_sampler, owns_comparison=False)
            self.app.push_screen(screen)

    def action_save(self) -> None:
        """Save a snapshot."""
        if self.device_watch is None:  # only until the first frame is drawn
            self.say(
                "The machine's figures are not read yet: save again in a moment.",
                severity="warning",
            )
            return
        if self.recovery.saving:
            self.say(
                "The last snapshot is still being saved; the disk is slow.", severity="warning"
            )
            return
        from quantchat.session.recorder import record

        with self.errors_as_notifications():
            with self.device_watch.borrowed() as sampler:
                snapshot = record(self.comparison, sampler)
            self._report_saved("Snapshot saved", self.recovery.save(snapshot))

    def _report_saved(self, title: str, file: Future[Path]) -> None:
        """When saving ends, show where `file` was saved, or why it could not be saved."""

        async def report() -> None:
            with self.errors_as_notifications():
                path = await asyncio.wrap_future(file)
                self.say(str(path), title=title, s=LONG_NOTICE_S)

        self.run_worker(report())

    def action_log(self) -> None:
        """Show the workers' logs."""
        from quantchat.app.screens.log import LogScreen

        self.app.push_screen(LogScreen(self.comparison.sides))

    # ------------------------------------------------------------ pointer

    @on(CommandChosen)
    async def _run_command(self, event: CommandChosen) -> None:
        if event.id == "send":
            self.prompt.send()
            return
        where = "app." if command(event.id).group == "Program" else "screen."
        await self.run_action(where + event.id)

    @on(LinkClicked)
    def _show_address(self, event: LinkClicked) -> None:
        # Show the address only: over SSH, a browser would open on the wrong machine.
        self.say(event.href, title="Link", s=LONG_NOTICE_S)
