"""Copies text to the clipboard of the user's own machine, over SSH and through multiplexers.

The escape sequence OSC 52 (xterm control sequences, "Manipulate Selection Data") asks the terminal
to set the clipboard. Terminals do not acknowledge it, so quantchat reports what it sent, not what
arrived.
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
"""Bytes of the text in one escape string. GNU screen accepts at most 768 bytes (its MAXSTR),
including the escape characters around the text."""

LIMIT = 74_994
"""Longest base64 text that xterm accepts in an OSC 52; other terminals accept at least that."""


@dataclass(frozen=True)
class CopyResult:
    """The outcome of a copy."""

    how: str
    """How the text was copied, for the notification."""
    sure: bool
    """Whether the text has certainly arrived in a paste buffer or clipboard."""


def copy(text: str, write: Callable[[str], None]) -> CopyResult:
    """Send `text` to the clipboard; `write` writes to the terminal. Returns the outcome.

    Control and invisible characters except newline and tab are left out. Otherwise, when the text
    is pasted into a shell, an ESC [ 201 ~ from a model would end the paste, and the shell would run
    the text after it.
    """
    clean = without_controls(text)
    copied = _send(clean, write)
    if left_out := len(text) - len(clean):
        what = "control character" if left_out == 1 else "control characters"
        return replace(copied, how=f"{copied.how}; {left_out} {what} left out")
    return copied


def _send(text: str, write: Callable[[str], None]) -> CopyResult:
    if os.environ.get("TMUX") and _load_into_tmux(text):
        return CopyResult(
            "copied to tmux's paste buffer, and to the clipboard if the terminal allows OSC 52",
            sure=True,
        )
    payload = base64.b64encode(text.encode("utf-8", "replace")).decode("ascii")
    sequence = f"\x1b]52;c;{payload}\x07"
    if os.environ.get("TMUX"):
        how = "sent through tmux, which needs `set -g allow-passthrough on` to pass it on"
        sequence = for_tmux(sequence)
    elif os.environ.get("STY"):
        how, sequence = "sent through GNU screen to the terminal's clipboard", for_screen(sequence)
    else:
        how = "sent to the clipboard with OSC 52, which some terminals refuse"
    if len(payload) > LIMIT:
        how += "; the text is long, some terminals cut it"
    write(sequence)
    return CopyResult(how, sure=False)


def for_tmux(sequence: str) -> str:
    """Wrap `sequence` for tmux's pass-through: DCS tmux; … ST, with each ESC doubled."""
    return "\x1bPtmux;" + sequence.replace("\x1b", "\x1b\x1b") + "\x1b\\"


def for_screen(sequence: str) -> str:
    """Wrap `sequence` for GNU screen's pass-through: DCS … ST, in pieces that fit its buffer."""
    pieces = (sequence[i : i + _SCREEN_CHUNK] for i in range(0, len(sequence), _SCREEN_CHUNK))
    return "".join(f"\x1bP{piece}\x1b\\" for piece in pieces)


def _load_into_tmux(text: str) -> bool:
    """Load `text` into tmux's buffer; `-w` (tmux 3.2) also sends it to the clipboard."""
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
