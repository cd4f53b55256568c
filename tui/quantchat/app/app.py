"""The Textual application: its theme, keys, error handling and shutdown."""

from __future__ import annotations

import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from textual import on
from textual.app import App, SystemCommand
from textual.binding import BindingType
from textual.command import CommandPalette, Provider
from textual.filter import LineFilter
from textual.screen import Screen
from textual.worker import WorkerFailed

from quantchat.app import clipboard, commands, gc_tuning, terminal, themes
from quantchat.app.commands import COMMANDS, PROFILE_COMMANDS, command
from quantchat.app.crash_recovery import Recoverable
from quantchat.app.device_watch import MakeSampler, real_sampler
from quantchat.app.messages import ProfileChosen
from quantchat.app.palette import CommandProvider, title
from quantchat.app.pasting import limit_typing, read_pastes_as_text, take_or_reject_whole_pastes
from quantchat.app.textual_races import patch_exceptions
from quantchat.app.textual_workarounds import (
    ControlGuard,
    PacedApp,
    draw_each_script,
    edit_in_order,
    free_lines_of_removed_widgets,
    identify_bindings,
    map_alt_enter,
    use_current_size,
    write_to_terminal,
)
from quantchat.daemon_thread import to_daemon_thread
from quantchat.errors import UserError
from quantchat.host.screen_log import log_exception
from quantchat.text import one_line, without_controls

if TYPE_CHECKING:
    from quantchat.app.preferences import Preferences
    from quantchat.app.screens.comparison import ComparisonScreen
    from quantchat.app.screens.vote import VoteScreen
    from quantchat.checkpoints.provider import CheckpointProvider, PreparedModel
    from quantchat.features.votes.voting import VotePlan
    from quantchat.host.worker_process import StartWorker
    from quantchat.profile.model import AnyVariant, Profile
    from quantchat.session.comparison import Comparison
    from quantchat.snapshot.schema import Snapshot
    from quantchat.wire.messages import Progress

TERMINAL_CHECK_S = 0.5
"""Seconds between two checks that the terminal still exists."""

CONFIRM_S = 8
"""Seconds after the first ^Q in which a second ^Q quits without saving."""

_CLEAR = "\x1b[2J"
"""Clears the terminal (ECMA-48, ED)."""

REPEAT_S = 10
"""Seconds in which the same internal error is reported only once: an error in drawing would occur
again with each frame."""

MakeComparison: TypeAlias = "Callable[[Profile], Comparison]"
"""Makes the comparison of a profile; tests pass one with scripted workers."""


class _LaterBuilder:
    """A checkpoint provider that imports and uses `CheckpointBuilder` at its first call.

    Without this import at the start, the first frame is drawn sooner.
    """

    def __init__(self) -> None:
        self._builder: CheckpointProvider | None = None

    async def prepare(
        self, spec: AnyVariant, on_progress: Callable[[Progress], None]
    ) -> PreparedModel:
        """Prepare the checkpoint of `spec` (see `CheckpointProvider.prepare`)."""
        if self._builder is None:
            from quantchat.checkpoints.builder import CheckpointBuilder

            self._builder = CheckpointBuilder()
        return await self._builder.prepare(spec, on_progress)


def real_comparison(profile: Profile) -> Comparison:
    """Return a comparison with real worker processes and the user's checkpoint cache."""
    from quantchat.session.comparison import Comparison

    return Comparison(profile, provider=_LaterBuilder())


CRASHED = 1
"""Textual's return code after an uncaught exception."""


class QuantchatApp(PacedApp):
    """The application: opens `profile`, or the start screen if there is no profile."""

    TITLE = "quantchat"
    CSS_PATH = "app.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        one.binding()
        for one in COMMANDS
        if one.group == "Program" and one.id not in ("quit", "command_palette")
    ]
    COMMANDS: ClassVar[set[type[Provider] | Callable[[], type[Provider]]]] = {CommandProvider}

    def __init__(
        self,
        profile: Profile | None = None,
        *,
        snapshots: Path | None = None,
        votes: VotePlan | None = None,
        chat: Snapshot | None = None,
        pair: tuple[int, int] = (0, 1),
        preferences: Preferences | None = None,
        make_comparison: MakeComparison = real_comparison,
        make_sampler: MakeSampler = real_sampler,
        provider: CheckpointProvider | None = None,
        start: StartWorker | None = None,
    ) -> None:
        """Save snapshots in the folder `snapshots`; None means the user's default folder.

        With `votes`, open a blind vote between two variants of `profile`. With `chat`, continue
        the conversation of that snapshot. `pair` has the indices of the variants that are shown
        first. Without `preferences`, use the defaults. Load tests and picks, which the user starts
        on the start screen, build checkpoints with `provider` and start workers with `start`; None
        means the real ones.
        """
        map_alt_enter()
        read_pastes_as_text()
        take_or_reject_whole_pastes()
        limit_typing()
        edit_in_order()
        free_lines_of_removed_widgets()
        draw_each_script()
        use_current_size()
        patch_exceptions()
        super().__init__()
        self._preferences = preferences
        keys = preferences.keys if preferences else {}
        commands.use_keys(keys)
        identify_bindings(self)
        self.set_keymap(keys)
        self._profile = profile
        self._votes = votes
        self._chat = chat
        self._pair = pair
        self._snapshots = snapshots
        self._make_comparison = make_comparison
        self._make_sampler = make_sampler
        self._provider, self._start = provider, start
        self._control_guard = ControlGuard()
        self._comparison_screen: ComparisonScreen | None = None
        self._vote_screen: VoteScreen | None = None
        self._confirm_until_s = 0.0
        self._first_frame_drawn = False
        """Whether the first frame is drawn. An error before that ends quantchat."""
        self.survived_errors: Counter[str] = Counter()
        """Internal errors after which quantchat went on, and how often each occurred."""
        self._report_again_s: dict[str, float] = {}
        self.recovery_file: Path | None = None
        """The file in which unsaved work was saved when quantchat had to end."""
        self._saved_while_ending: Path | None = None
        """A snapshot that was written while quantchat ended."""
        self._not_saved_reason = ""
        """Why unsaved work could not be saved."""
        for theme in themes.for_terminal(self.console.color_system):
            self.register_theme(theme)
        self.theme = preferences.theme if preferences else themes.THEMES[0].name

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Return our colour variables, for themes that do not define them."""
        return themes.VARIABLES

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Add the filter that keeps control characters from the terminal."""
        return [*super().get_line_filters(), self._control_guard]

    def get_default_screen(self) -> Screen[None]:
        """Return the comparison or vote screen as the first screen.

        If it were pushed later, Textual would first draw an empty screen.
        """
        if self._profile is None:
            return super().get_default_screen()
        if self._votes is not None:
            from quantchat.app.screens.vote import VoteScreen
            from quantchat.features.votes.voting import Voting

            voting = Voting(self._make_comparison(self._profile), self._votes)
            self._vote_screen = VoteScreen(
                voting, self._snapshots, self._make_sampler, owns_comparison=True
            )
            return self._vote_screen
        return self.comparison_screen(self._profile, self._pair, self._chat)

    @property
    def votes_saved(self) -> Path | None:
        """The snapshot of the votes that quantchat was started for, or None."""
        return self._vote_screen.saved if self._vote_screen else None

    def comparison_screen(
        self, profile: Profile, pair: tuple[int, int], chat: Snapshot | None = None
    ) -> ComparisonScreen:
        """Return a new comparison screen for `profile`; with `chat`, continue that conversation."""
        from quantchat.app.screens.comparison import ComparisonScreen

        preferred = self._preferences
        comparison = self._make_comparison(preferred.apply_to(profile) if preferred else profile)
        comparison.pair = pair
        self._comparison_screen = ComparisonScreen(comparison, self._snapshots, self._make_sampler)
        self._comparison_screen.remembers_prompts = preferred is None or preferred.history
        if chat is not None:
            self._comparison_screen.continue_chat(chat)
        return self._comparison_screen

    @on(ProfileChosen)
    def _open_profile(self, event: ProfileChosen) -> None:
        """Switch from the start screen to the comparison."""
        screen = self.comparison_screen(event.profile, event.pair, event.chat)
        screen.plan_when_ready = event.plan
        self.switch_screen(screen)

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """Fill the palette with the commands of the screen that it was opened from."""
        from quantchat.app.screens.start import StartScreen

        found = [one for one in COMMANDS if not one.in_prompt and one.id != "command_palette"]
        if screen is not self._comparison_screen:
            found = [one for one in found if one.group == "Program"]
        if isinstance(screen, StartScreen):
            found = [*PROFILE_COMMANDS, *found]
        for one in found:
            node = self if one.group == "Program" else screen

            async def run(action: str = one.id, node: App[None] | Screen[Any] = node) -> None:
                await node.run_action(action)

            yield SystemCommand(title(one), one.help, run)

    def on_mount(self) -> None:
        """Push the start screen; install signal handlers and the terminal check."""
        if self._profile is None:
            from quantchat.app.screens.start import StartScreen

            start = StartScreen(
                self._snapshots, self._make_sampler, provider=self._provider, start=self._start
            )
            # Push it: `switch_screen` can only replace a pushed screen.
            self.push_screen(start)
        self.call_after_refresh(self._after_first_frame)
        if not self.is_headless:
            terminal.on_signals(self._end_by_signal, self._save_and_report)
            self.set_interval(TERMINAL_CHECK_S, self._end_if_terminal_closed)

    def _after_first_frame(self) -> None:
        self._first_frame_drawn = True
        gc_tuning.first_frame_drawn()

    def _handle_exception(self, error: Exception) -> None:
        """Report an unexpected error and go on, so that loaded models are not lost.

        Textual would end the app after an exception in an action, a handler, a timer, or
        while drawing.
        """
        if self._first_frame_drawn and not self._screen_stack:
            return  # a key arrived while the last screen was being closed
        cause = error.error if isinstance(error, WorkerFailed) else error
        if self.is_headless and self._exception is None:  # makes a test fail
            self._exception = error
            self._exception_event.set()
        if not self._first_frame_drawn or not self._running:
            self._return_code = CRASHED
            log_exception(cause)
            self._close_messages_no_wait()
            return
        self._report(cause)
        self.call_later(self._leave_unfinished_screen)

    def _report(self, error: BaseException) -> None:
        """Log and show `error`; show the same error at most once in `REPEAT_S`."""
        name = f"{type(error).__name__}: {error}"
        self.survived_errors[name] += 1
        now = time.monotonic()
        if now < self._report_again_s.get(name, now):
            return
        self._report_again_s[name] = now + REPEAT_S
        log_exception(error)
        self.notify(
            f"{one_line(name)}. quantchat continues; the log of the screen has details.",
            title="Internal error in quantchat",
            severity="error",
            timeout=CONFIRM_S,
            markup=False,
        )

    def _leave_unfinished_screen(self) -> None:
        """Remove a screen that failed while it was being built, since it would take all keys.

        Depending on when the error came, such a screen does not run, or runs without any widget.
        """
        unfinished = not self.screen.is_running or not self.screen.children
        if len(self.screen_stack) > 1 and unfinished:
            self.pop_screen()

    def _end_by_signal(self, signal_number: int) -> None:
        """Save unsaved work and end quantchat with the exit status of the signal."""
        self.save_for_recovery()
        self.exit(return_code=128 + signal_number)

    def save_for_recovery(self) -> None:
        """Save unsaved work for recovery; the next start screen lists it. Raises nothing."""
        for holder in self._holders():
            self.save_work_of(holder)

    def save_work_of(self, holder: Recoverable) -> None:
        """Save unsaved work of `holder`. Raises nothing, so that quantchat can end."""
        try:
            if path := holder.save_for_recovery():
                self.recovery_file, self._not_saved_reason = path, ""
        except UserError as error:
            self._not_saved_reason = str(error)

    def _save_and_report(self) -> list[str]:
        """Save unsaved work for recovery; return the lines to print at the end."""
        self.save_for_recovery()
        return self.closing_lines()

    def finish_saving(self) -> None:
        """Wait, for a limited time, for a snapshot that is still being written. Raises nothing."""
        if self._comparison_screen is not None:
            try:
                self._saved_while_ending = self._comparison_screen.recovery.wait_for_save()
            except UserError as error:
                self._not_saved_reason = str(error)

    def closing_lines(self) -> list[str]:
        """Return the lines to print after the screen is closed."""
        lines = []
        if self.votes_saved is not None:
            lines.append(f"saved {self.votes_saved}")
        if self._saved_while_ending is not None:
            lines.append(f"saved {self._saved_while_ending}")
        if self.recovery_file is not None:
            lines.append(
                f"your unsaved conversation was kept in {self.recovery_file}; the start screen of"
                " `quantchat` lists it as recovered"
            )
        if self._not_saved_reason:
            lines.append(f"unsaved work could not be saved: {self._not_saved_reason}")
        return lines

    def _holders(self) -> list[Recoverable]:
        holders = (*reversed(self.screen_stack), self._comparison_screen)
        return [one for one in holders if isinstance(one, Recoverable)]

    async def action_quit(self) -> None:
        """Quit; if something is not saved, only at the second press within `CONFIRM_S`."""
        now = time.monotonic()
        if now < self._confirm_until_s or not any(one.unsaved for one in self._holders()):
            self.exit()
            return
        self._confirm_until_s = now + CONFIRM_S
        title, hint = "Not saved", "^Q again quits without saving."
        if self._comparison_screen is not None and self._comparison_screen.recovery.saving:
            title = "Still saving"
            hint = "The disk is slow. ^Q again quits as soon as the snapshot is written."
        elif self.screen is self._comparison_screen:
            hint = f"{command('save').key} saves the conversation. {hint}"
        self.notify(
            hint,
            title=title,
            severity="warning",
            timeout=CONFIRM_S,
            markup=False,
        )

    def _end_if_terminal_closed(self) -> None:
        if terminal.is_hung_up(sys.__stdin__.fileno() if sys.__stdin__ else -1):
            terminal.force_end_later(128 + signal.SIGHUP, self._save_and_report)
            self._end_by_signal(signal.SIGHUP)

    def action_command_palette(self) -> None:
        """Open the palette, unless a closed palette still exists: both would have the same id."""
        if not any(isinstance(one, CommandPalette) for one in self._nodes):
            super().action_command_palette()

    async def action_theme(self) -> None:
        """Switch to the next theme, and write it into the user's preferences."""
        from quantchat.app.preferences import save_theme

        self.theme = chosen = themes.next_theme(self.theme)
        try:
            await to_daemon_thread(lambda: save_theme(chosen))
        except UserError as error:
            self.notify(one_line(str(error)), title="Theme not saved", severity="warning")

    def action_redraw(self) -> None:
        """Clear the terminal and draw everything again."""
        write_to_terminal(self)(_CLEAR)
        self.screen.refresh(layout=True)

    def action_help(self) -> None:
        """Show the keys, the terms, and why a figure is not known."""
        from quantchat.app.screens.help import HelpScreen, start_help

        if not isinstance(self.screen, HelpScreen):
            shown = (
                self._comparison_screen if self._comparison_screen in self.screen_stack else None
            )
            if shown:
                self.push_screen(HelpScreen(COMMANDS, shown.unknown_figures()))
            else:
                self.push_screen(start_help())

    def copy_to_clipboard(self, text: str) -> None:
        """Copy `text`, also inside tmux and GNU screen; ignore an empty selection."""
        if not text:
            return
        self._clipboard = without_controls(text)
        clipboard.copy(text, write_to_terminal(self))
