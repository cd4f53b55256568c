"""The Textual application: its theme, its keys, its end."""

from __future__ import annotations

import gc
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from textual.app import App, SystemCommand
from textual.binding import BindingType
from textual.command import CommandPalette
from textual.filter import LineFilter
from textual.screen import Screen
from textual.worker import WorkerFailed

from quantchat.app import CRASHED, clipboard, terminal, themes
from quantchat.app.commands import COMMANDS
from quantchat.app.crash_recovery import Recoverable
from quantchat.app.device_watch import MakeSampler, real_sampler
from quantchat.app.pasting import take_pastes_for_text, take_pastes_whole
from quantchat.app.textual_races import survive_races
from quantchat.app.textual_workarounds import (
    ControlGuard,
    PacedApp,
    draw_each_script,
    edit_in_order,
    let_drawn_lines_go,
    settle_on_one_size,
    tell_alt_enter,
    write_to_terminal,
)
from quantchat.errors import UserError
from quantchat.host.screen_log import log_exception
from quantchat.text import one_line, without_controls

if TYPE_CHECKING:
    from quantchat.app.screens.comparison import ComparisonScreen
    from quantchat.app.screens.start import StartScreen
    from quantchat.app.screens.vote import VoteScreen
    from quantchat.checkpoints.maker import Maker, Prepared
    from quantchat.features.votes.voting import VotePlan
    from quantchat.profile.model import AnyVariant, Profile
    from quantchat.session.comparison import Comparison
    from quantchat.wire.messages import Progress

LOOK_S = 0.5
"""How often it is looked whether the terminal is still there."""

ASKED_S = 8
"""How long the question stands whether to leave what is not saved."""

MISTAKE_S = 10
"""How often the same mistake is told and logged anew: one in drawing comes with each frame."""

MakeComparison: TypeAlias = "Callable[[Profile], Comparison]"
"""The seam for tests: a comparison with scripted workers."""


class _LaterBuilder:
    """The workshop, imported when something is to be made: it is no part of the first frame."""

    def __init__(self) -> None:
        self._workshop: Maker | None = None

    async def prepare(self, spec: AnyVariant, on_progress: Callable[[Progress], None]) -> Prepared:
        """As `Maker.prepare`."""
        if self._workshop is None:
            from quantchat.checkpoints.builder import CheckpointBuilder

            self._workshop = CheckpointBuilder()
        return await self._workshop.prepare(spec, on_progress)


def real_comparison(profile: Profile) -> Comparison:
    """A comparison of real worker processes on checkpoints of the user's cache."""
    from quantchat.session.comparison import Comparison

    return Comparison(profile, maker=_LaterBuilder())


def _collect_garbage_again() -> None:
    """Undo what `cli.quick.quick_start` did; what was imported is never looked at again."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


class QuantchatApp(PacedApp):
    """Opens `profile`, or the start screen where there is none."""

    TITLE = "quantchat"
    CSS_PATH = "app.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        one.binding()
        for one in COMMANDS
        if one.group == "Program" and one.id not in ("quit", "command_palette")
    ]

    def __init__(
        self,
        profile: Profile | None = None,
        *,
        snapshots: Path | None = None,
        votes: VotePlan | None = None,
        make_comparison: MakeComparison = real_comparison,
        make_sampler: MakeSampler = real_sampler,
    ) -> None:
        """`snapshots` is the folder to save into, None for the user's own.

        With `votes` the answers of `profile` are voted on, blindly.
        """
        tell_alt_enter()
        take_pastes_for_text()
        take_pastes_whole()
        edit_in_order()
        let_drawn_lines_go()
        draw_each_script()
        settle_on_one_size()
        survive_races()
        super().__init__()
        self._profile = profile
        self._votes = votes
        self._snapshots = snapshots
        self._make_comparison = make_comparison
        self._make_sampler = make_sampler
        self._guard = ControlGuard()
        self._comparing: ComparisonScreen | None = None
        self._vote: VoteScreen | None = None
        self._asked_until_s = 0.0
        self._begun = False
        """Whether the first frame is drawn: a mistake before that ends the program."""
        self.mistakes: Counter[str] = Counter()
        """What the program went on after, and how often."""
        self._told_s: dict[str, float] = {}
        self.kept: Path | None = None
        """The file of what nobody had saved when the program had to leave."""
        self._not_kept = ""
        """Why there is none."""
        for theme in themes.THEMES:
            self.register_theme(theme)
        self.theme = themes.THEMES[0].name

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Our colours, for themes that do not name them."""
        return themes.VARIABLES

    def get_line_filters(self) -> Sequence[LineFilter]:
        """No control character is drawn, wherever it comes from."""
        return [*super().get_line_filters(), self._guard]

    def get_default_screen(self) -> Screen[None]:
        """The comparison, or the vote: Textual would draw an empty screen before it."""
        if self._profile is None:
            return super().get_default_screen()
        if self._votes is not None:
            from quantchat.app.screens.vote import VoteScreen
            from quantchat.features.votes.voting import Voting

            voting = Voting(self._make_comparison(self._profile), self._votes)
            self._vote = VoteScreen(voting, self._snapshots, self._make_sampler, alone=True)
            return self._vote
        return self.comparison_screen(self._profile)

    @property
    def votes_saved(self) -> Path | None:
        """The snapshot of the votes that the program was started for, if there is one."""
        return self._vote.saved if self._vote else None

    def comparison_screen(self, profile: Profile) -> ComparisonScreen:
        """A new comparison of `profile`."""
        from quantchat.app.screens.comparison import ComparisonScreen

        comparison = self._make_comparison(profile)
        self._comparing = ComparisonScreen(comparison, self._snapshots, self._make_sampler)
        return self._comparing

    def on_start_screen_chosen(self, event: StartScreen.Chosen) -> None:
        """Go from the start to the comparison."""
        self.switch_screen(self.comparison_screen(event.profile))

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """The palette: each command of the screen that it was opened from."""
        at_comparison = screen is self._comparing
        for one in COMMANDS:
            if one.in_prompt or one.id == "command_palette":
                continue
            program = one.group == "Program"
            if program or at_comparison:
                node = self if program else screen

                async def run(action: str = one.id, node: App[None] | Screen[Any] = node) -> None:
                    await node.run_action(action)

                title = one.label[0].upper() + one.label[1:]
                yield SystemCommand(f"{title} ({one.key})", one.help, run)

    def on_mount(self) -> None:
        """Begin at the start; leave in good order when the terminal or the system says so."""
        if self._profile is None:
            from quantchat.app.screens.start import StartScreen

            # Pushed, since only what was pushed can be switched for the comparison.
            self.push_screen(StartScreen(self._snapshots, self._make_sampler))
        self.call_after_refresh(self._after_first_frame)
        if not self.is_headless:
            terminal.on_signals(self._leave, self._last)
            self.set_interval(LOOK_S, self._leave_with_the_terminal)

    def _after_first_frame(self) -> None:
        self._begun = True
        _collect_garbage_again()

    def _handle_exception(self, error: Exception) -> None:
        """Report what nobody foresaw and go on: it must not end models that took long to load.

        Textual would end the program, for whatever raises in an action, a handler or a timer, or
        while something is drawn.
        """
        if self._begun and not self._screen_stack:
            return  # a key that came while the last screen was closed
        cause = error.error if isinstance(error, WorkerFailed) else error
        if self.is_headless and self._exception is None:  # so that a test fails by it
            self._exception = error
            self._exception_event.set()
        if not self._begun or not self._running:
            self._return_code = CRASHED
            log_exception(cause)
            self._close_messages_no_wait()
            return
        self._report(cause)
        self.call_later(self._leave_unfinished_screen)

    def _report(self, error: BaseException) -> None:
        """Write `error` to the log and tell of it; the same one, if it repeats, now and then."""
        name = f"{type(error).__name__}: {error}"
        self.mistakes[name] += 1
        now = time.monotonic()
        if now < self._told_s.get(name, now):
            return
        self._told_s[name] = now + MISTAKE_S
        log_exception(error)
        self.notify(
            f"{one_line(name)}. The program goes on; its log tells more",
            title="A mistake of quantchat's own",
            severity="error",
            timeout=ASKED_S,
            markup=False,
        )

    def _leave_unfinished_screen(self) -> None:
        """Take a screen away that could not be made: it would hear no key."""
        if len(self.screen_stack) > 1 and not self.screen.is_running:
            self.pop_screen()

    def _leave(self, signal_number: int) -> None:
        self.keep()
        self.exit(return_code=128 + signal_number)

    def keep(self) -> None:
        """Keep what nobody saved, for the next start to offer. Raises nothing."""
        for holder in self._holders():
            self.keep_of(holder)

    def keep_of(self, holder: Recoverable) -> None:
        """Keep what nobody saved of `holder`. Raises nothing: the end must go on."""
        try:
            if path := holder.keep():
                self.kept, self._not_kept = path, ""
        except UserError as error:
            self._not_kept = str(error)

    def _last(self) -> list[str]:
        self.keep()
        return self.last_words()

    def last_words(self) -> list[str]:
        """What to say on the terminal once the screen is gone, a line each."""
        lines = []
        if self.votes_saved is not None:
            lines.append(f"saved {self.votes_saved}")
        if self.kept is not None:
            lines.append(f"what nobody had saved is kept in {self.kept}; the next start offers it")
        if self._not_kept:
            lines.append(f"what nobody had saved could not be kept: {self._not_kept}")
        return lines

    def _holders(self) -> list[Recoverable]:
        holders = (*reversed(self.screen_stack), self._comparing)
        return [one for one in holders if isinstance(one, Recoverable)]

    async def action_quit(self) -> None:
        """Leave; where that loses something, at the second time."""
        now = time.monotonic()
        if now < self._asked_until_s or not any(one.unsaved for one in self._holders()):
            self.exit()
            return
        self._asked_until_s = now + ASKED_S
        saves = "^S saves it, " if self.screen is self._comparing else ""
        self.notify(
            f"{saves}^Q again leaves without it",
            title="Not saved",
            severity="warning",
            timeout=ASKED_S,
            markup=False,
        )

    def _leave_with_the_terminal(self) -> None:
        if terminal.hung_up(sys.__stdin__.fileno() if sys.__stdin__ else -1):
            self._leave(signal.SIGHUP)
            terminal.end_for_sure(128 + signal.SIGHUP, self._last)

    def action_command_palette(self) -> None:
        """Open the palette, but not while one that was left is still taken down: it has its id."""
        if not any(isinstance(one, CommandPalette) for one in self._nodes):
            super().action_command_palette()

    def action_theme(self) -> None:
        """The next theme."""
        self.theme = themes.after(self.theme)

    def action_help(self) -> None:
        """Keys, words, and why a figure is not known."""
        from quantchat.app.screens.help import HelpScreen

        if not isinstance(self.screen, HelpScreen):
            shown = self._comparing if self._comparing in self.screen_stack else None
            unknown = shown.unknown_figures() if shown else []
            commands = [one for one in COMMANDS if shown or one.group == "Program"]
            self.push_screen(HelpScreen(commands, unknown))

    def copy_to_clipboard(self, text: str) -> None:
        """Copy `text`, also from within tmux and GNU screen; what is empty clears no clipboard."""
        if not text:
            return
        self._clipboard = without_controls(text)
        clipboard.copy(text, write_to_terminal(self))
