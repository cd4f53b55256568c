"""The terminal user interface ("the screen").

Importing this package is fast, because Textual is imported only when `run` is called.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from quantchat import paths
from quantchat.errors import UserError
from quantchat.text import one_line

if TYPE_CHECKING:
    from quantchat.app.preferences import Preferences
    from quantchat.features.votes.voting import VotePlan
    from quantchat.profile.model import Profile
    from quantchat.snapshot.schema import Snapshot

_DUMB = ("dumb", "unknown")
"""Values of TERM for terminals that cannot move the cursor (terminfo(5))."""


def run(
    profile: Profile | None,
    *,
    snapshots: Path | None,
    votes: VotePlan | None = None,
    chat: Snapshot | None = None,
    pair: tuple[int, int] = (0, 1),
    low_bandwidth: bool | None = None,
    on_voted: Callable[[Path], None] = lambda saved: None,
) -> int:
    """Show `profile` until the user quits; None shows the start screen. Returns the exit status.

    With `votes`, the user votes blind on the answers of two variants. With `chat`, the conversation
    of that snapshot is continued. `pair` has the indices, in the profile, of the variants that are
    shown first: left and right. If votes were given, `on_voted` is called with the path of their
    snapshot after the screen is closed.

    Snapshots are saved in the folder `snapshots`; None means the user's default folder.
    `low_bandwidth` says whether few bytes are sent to the terminal. None means what the preferences
    say; if they do not say it, fewer bytes are sent over SSH than to a local terminal.
    Raises UserError if the preferences have a mistake, if there is no terminal, if the terminal
    cannot move its cursor, or if the log cannot be written.
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UserError(
            "the screen needs a terminal on standard input and standard error",
            hint="run quantchat without redirecting them, or see quantchat --help",
        )
    kind = os.environ.get("TERM", "")
    if kind.lower() in _DUMB:
        raise UserError(
            f"the screen cannot be drawn on a terminal with TERM={kind}",
            hint="set TERM to the type of your terminal, or measure without a screen: "
            "`quantchat run`",
        )
    from quantchat.app import gc_tuning, terminal

    preferred = _preferences()
    if low_bandwidth is None and preferred is not None:
        low_bandwidth = preferred.low_bandwidth
    terminal.configure_textual(low_bandwidth)
    gc_tuning.start()
    from quantchat.app.app import CRASHED, QuantchatApp

    app = QuantchatApp(
        profile,
        snapshots=snapshots,
        votes=votes,
        chat=chat,
        pair=pair,
        preferences=preferred,
    )
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
        app.save_for_recovery()
    app.finish_saving()
    for line in app.closing_lines():
        _say(line)
    if app.survived_errors and status != CRASHED:
        _say(f"continued after an internal error; see {log}")
    if status == CRASHED:
        _say(f"the screen ended with an internal error; see {log}")
    if app.votes_saved is not None:
        on_voted(app.votes_saved)
    return status


def _preferences() -> Preferences | None:
    """Return the user's preferences, or None if there is no file of preferences.

    The module that reads the file is imported only if the file exists, to start faster.
    """
    if not paths.preferences_file().is_file():
        return None
    from quantchat.app import preferences

    return preferences.load()


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may be gone
        sys.stderr.write(f"quantchat: {one_line(text)}\n")
