"""The comparison, and all that its user can do with it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.binding import BindingType

from quantchat.app import clipboard, outputs
from quantchat.app.commands import COMMANDS, command
from quantchat.app.messages import CommandChosen, LinkClicked, PromptSent, ScrollAsked
from quantchat.app.screens.comparison_view import LONG_S, ComparisonView
from quantchat.app.textual_workarounds import write_to_terminal
from quantchat.profile.model import Generation
from quantchat.session.live_variant import State

if TYPE_CHECKING:
    from quantchat.features.measure.rounds import Plan


class ComparisonScreen(ComparisonView):
    """Each command of the key line as an action."""

    BINDINGS: ClassVar[list[BindingType]] = [
        one.binding() for one in COMMANDS if not one.in_prompt and one.group != "Program"
    ]
    _draft: str | None = None
    """What was in the prompt box before an earlier prompt was put there, to be edited."""

    # ------------------------------------------------------------ prompt and conversation

    @on(PromptSent)
    def _send(self, event: PromptSent) -> None:
        sent = False
        with self.explained():
            if self._draft is not None:
                self.comparison.again(event.text)
            else:
                self.comparison.ask(event.text)
            sent = True
        if sent:
            self._leave_editing()
            self.prompt.remember(event.text)
        else:
            self.prompt.give_back(event.text)

    @on(ScrollAsked)
    def _scroll(self, event: ScrollAsked) -> None:
        self.columns.scroll_pages(event.pages)
        self.stale = True

    def action_stop(self) -> None:
        """Stop both answers, or leave editing."""
        if self.comparison.busy:
            self.comparison.stop()
        elif self._draft is not None:
            self.prompt.put(self._draft)
            self._leave_editing()

    def action_order(self) -> None:
        """Together, or in turn, from the next prompt on."""
        self.comparison.order = "in-turn" if self.comparison.order == "together" else "together"
        self.name_order()

    def action_regenerate(self) -> None:
        """Ask the last prompt again."""
        with self.explained():
            self.comparison.again()

    def action_edit(self) -> None:
        """Put the last prompt into the box, to be sent in its own place."""
        last = self.comparison.last_turn
        if last is None:
            self.say("nothing was asked yet", severity="warning")
            return
        if self._draft is None:
            self._draft = self.prompt.text
        self.prompt.add_class("-editing")
        self.prompt.put(last.prompt)
        self.say(f"Enter sends it in place of the last turn, {command('stop').key} leaves it be")

    def _leave_editing(self) -> None:
        self._draft = None
        self.prompt.remove_class("-editing")

    def action_new_chat(self) -> None:
        """Forget what was said."""
        with self.explained():
            self.comparison.new_chat()
            self._leave_editing()

    def action_forget(self) -> None:
        """Forget the oldest turn."""
        with self.explained():
            self.comparison.forget_oldest()

    def action_settings(self) -> None:
        """System prompt and sampling."""
        from quantchat.app.screens.settings import SettingsScreen

        def done(generation: Generation | None) -> None:
            if generation is not None:
                self.comparison.set_generation(generation)
                self.say("in force from the next prompt on")

        self.app.push_screen(SettingsScreen(self.comparison.generation), done)

    # ------------------------------------------------------------ columns

    def action_maximise(self) -> None:
        """One column, the other, both."""
        self.columns.maximise()

    async def action_swap(self) -> None:
        """Let left and right change places."""
        self.comparison.swap()
        await self.columns.show_pair()
        self.stale = True

    def action_pair(self) -> None:
        """Choose another pair."""
        from quantchat.app.screens.pair import PairScreen

        async def done(pair: tuple[int, int] | None) -> None:
            if pair is not None:
                with self.explained():
                    self.comparison.choose_pair(*pair)
                    await self.columns.show_pair()
                    self.stale = True

        self.app.push_screen(PairScreen(self.comparison), done)

    def action_retry(self) -> None:
        """Load again what failed, and what does not respond."""
        now = time.monotonic()
        troubled = [
            variant
            for variant in self.comparison.sides
            if variant.state is State.FAILED or variant.silence(now) is not None
        ]
        if not troubled:
            self.say("nothing has failed", severity="warning")
        for variant in troubled:
            variant.retry()

    def action_follow(self) -> None:
        """Follow the end, or stay."""
        follows = self.columns.toggle_follow()
        self.say("following the end" if follows else "staying here", s=2)
        self.stale = True

    def action_divergence(self) -> None:
        """Go to where the answers part."""
        if not self.columns.to_divergence():
            self.say("no greedy answers part here, token by token", severity="warning")
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
            self.say("there is no answer to copy", severity="warning")
            return
        copied = clipboard.copy(answer.text, write_to_terminal(self.app))
        tail = "" if copied.sure else f". {command('save_answers').key} writes it to a file"
        self.say(f"{answer.variant}: {len(answer.text)} characters {copied.how}{tail}", s=LONG_S)

    def action_save_answers(self) -> None:
        """Save the last answers to a text file."""
        turn = self.comparison.last_turn
        if turn is None:
            self.say("there is no answer to save", severity="warning")
            return
        with self.explained():
            path = outputs.save_answers(turn, self.comparison, self.snapshots)
            self.say(str(path), title="Answers saved", s=LONG_S)

    def action_measure(self) -> None:
        """Measure the pair in rounds."""
        from quantchat.app.screens.measure_plan import MeasurePlanScreen

        def begin(plan: Plan | None) -> None:
            from quantchat.app.screens.measure import MeasuringScreen

            if plan is not None:
                self.app.push_screen(
                    MeasuringScreen(
                        self.comparison, plan, self.make_sampler, self.snapshots, self.recovery
                    )
                )

        with self.explained():
            self.comparison.unless_pair_idle()
            self.app.push_screen(MeasurePlanScreen(self.comparison), begin)

    def action_cross_perplexity(self) -> None:
        """Show each answer as the other variant reads it."""
        from quantchat.app.screens.cross_perplexity import CrossPerplexityScreen

        turn = self.comparison.last_turn
        with self.explained():
            self.comparison.unless_pair_idle()
            if turn is None or sum(bool(answer.ids) for answer in turn.answers.values()) < 2:
                raise ValueError("there are no two answers to be read")
            self.app.push_screen(CrossPerplexityScreen(self.comparison, turn))

    def action_agreement(self) -> None:
        """See how early each variant parts from itself."""
        from quantchat.app.screens.agreement import SelfCheckScreen

        with self.explained():
            self.comparison.unless_pair_idle()
            self.app.push_screen(SelfCheckScreen(self.comparison, self._prompts()))

    def _prompts(self) -> tuple[str, ...]:
        """Those of this conversation, else the profile's."""
        from quantchat.session import prompts

        asked = dict.fromkeys(turn.prompt for turn in self.comparison.conversation.turns)
        return tuple(asked) or prompts.of(self.comparison.profile.run)

    def action_blind(self) -> None:
        """Vote blindly on this conversation's prompts, or on the profile's."""
        import secrets

        from quantchat.app.screens.vote import VoteScreen
        from quantchat.features.votes.voting import VotePlan, Voting

        with self.explained():
            self.comparison.unless_pair_idle()
            voting = Voting(self.comparison, VotePlan(self._prompts(), secrets.randbits(32)))
            screen = VoteScreen(voting, self.snapshots, self.make_sampler, alone=False)
            self.app.push_screen(screen)

    def action_save(self) -> None:
        """Save a snapshot."""
        if self.device_watch is None:  # as the first frame is drawn, and for no longer
            self.say("nothing is known of this machine yet: save in a moment", severity="warning")
            return
        with self.explained(), self.device_watch.borrowed() as sampler:
            with self.recovery.saving():
                path = outputs.save_snapshot(self.comparison, self.snapshots, sampler)
            self.say(str(path), title="Snapshot saved", s=LONG_S)

    def action_log(self) -> None:
        """Show a worker's log."""
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
    def _name_link(self, event: LinkClicked) -> None:
        # Opened on this machine it would be of no use: the reader sits at another one.
        self.say(event.href, title="Link", s=LONG_S)
