"""The screen. Importing this is cheap: Textual comes with the first call of `run`."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from quantchat.errors import UserError
from quantchat.text import one_line

if TYPE_CHECKING:
    from quantchat.features.votes.voting import VotePlan
    from quantchat.profile.model import Profile

CRASHED = 1
"""What Textual returns after an exception that nobody caught."""

_DUMB = ("dumb", "unknown")
"""Values of TERM that name no terminal which could move its cursor (terminfo(5))."""


def run(
    profile: Profile | None,
    *,
    snapshots: Path | None,
    votes: VotePlan | None = None,
    low_bandwidth: bool | None = None,
) -> int:
    """Show `profile`, or the start screen for None, until the user leaves. Returns the exit status.

    With `votes` its answers are voted on, blindly.

    `snapshots` is the folder to save into, None for the user's own. `low_bandwidth` spares a slow
    connection, or spares it nothing; None goes by whether there is a network. Raises UserError
    where there is no terminal, or one that can only print, or no log can be written.
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UserError(
            "the screen needs a terminal on standard input and standard error",
            hint="run quantchat without redirecting them, or see quantchat --help",
        )
    kind = os.environ.get("TERM", "")
    if kind.lower() in _DUMB:
        raise UserError(
            f"the screen cannot be drawn on a terminal that says TERM={kind}",
            hint="`quantchat run` measures without a screen; or set TERM to what the terminal is",
        )
    from quantchat.app import collector, terminal

    terminal.quieten_textual(low_bandwidth)
    collector.take_over()
    from quantchat.app.app import QuantchatApp

    app = QuantchatApp(profile, snapshots=snapshots, votes=votes)
    with contextlib.ExitStack() as stack:
        try:
            log = stack.enter_context(terminal.guarded_stderr())
        except OSError as error:
            raise UserError(
                f"the screen's log cannot be written: {error.strerror or error}",
                where=str(error.filename or ""),
                hint="set QUANTCHAT_LOGS to a folder of your own",
            ) from error
        app.run(mouse=terminal.pace().mouse)
    status = app.return_code or 0
    if status == CRASHED:
        app.keep()
    for line in app.last_words():
        _say(line)
    if app.mistakes and status != CRASHED:
        _say(f"went on after a mistake of its own; {log} tells more")
    if status == CRASHED:
        _say(f"the screen ended with an error; {log} tells more")
    return status


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may be gone
        sys.stderr.write(f"quantchat: {one_line(text)}\n")
