"""Copying to the clipboard of the machine the user sits at, over SSH and through multiplexers.

OSC 52 (xterm control sequences, "Manipulate Selection Data") asks the terminal to do it. No
terminal answers, so what can be said is what was sent, not what arrived.
"""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace

from quantchat.text import without_controls

_SCREEN_CHUNK = 760
"""GNU screen takes at most 768 bytes in one string (its MAXSTR), the wrapping included."""

LIMIT = 74_994
"""Longest base64 that xterm takes in an OSC 52; other terminals have the same or more."""


@dataclass(frozen=True)
class Copied:
    """What was done, for the notification; `sure` if the text is certain to be somewhere."""

    how: str
    sure: bool


def copy(text: str, write: Callable[[str], None]) -> Copied:
    """Send `text` to the clipboard; `write` writes to the terminal. Returns what was done.

    Control and invisible characters but newline and tab are left out: pasted into a shell, a
    model's ESC [ 201 ~ would end the paste and run what follows.
    """
    clean = without_controls(text)
    copied = _sent(clean, write)
    if left_out := len(text) - len(clean):
        what = "control character" if left_out == 1 else "control characters"
        return replace(copied, how=f"{copied.how}; {left_out} {what} left out")
    return copied


def _sent(text: str, write: Callable[[str], None]) -> Copied:
    if os.environ.get("TMUX") and _into_tmux(text):
        return Copied(
            "into tmux's paste buffer, and on to the terminal's clipboard if its OSC 52 is allowed",
            sure=True,
        )
    payload = base64.b64encode(text.encode("utf-8", "replace")).decode("ascii")
    sequence = f"\x1b]52;c;{payload}\x07"
    if os.environ.get("TMUX"):
        how = "sent through tmux, which passes it on only with `set -g allow-passthrough on`"
        sequence = for_tmux(sequence)
    elif os.environ.get("STY"):
        how, sequence = "sent through GNU screen to the terminal's clipboard", for_screen(sequence)
    else:
        how = "sent to the terminal's clipboard (OSC 52), which it may refuse"
    if len(payload) > LIMIT:
        how += "; it is long, and some terminals cut it"
    write(sequence)
    return Copied(how, sure=False)


def for_tmux(sequence: str) -> str:
    """Wrap `sequence` in tmux's pass-through: DCS tmux; … ST, each ESC doubled."""
    return "\x1bPtmux;" + sequence.replace("\x1b", "\x1b\x1b") + "\x1b\\"


def for_screen(sequence: str) -> str:
    """Wrap `sequence` in GNU screen's pass-through: DCS … ST, in pieces that it has room for."""
    pieces = (sequence[i : i + _SCREEN_CHUNK] for i in range(0, len(sequence), _SCREEN_CHUNK))
    return "".join(f"\x1bP{piece}\x1b\\" for piece in pieces)


def _into_tmux(text: str) -> bool:
    """Load `text` into tmux's buffer; `-w` (tmux 3.2) sends it on to the clipboard as well."""
    tmux = shutil.which("tmux")
    if tmux is None:
        return False
    try:
        done = subprocess.run(
            [tmux, "load-buffer", "-w", "-"],
            input=text.encode("utf-8", "replace"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=2,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0
