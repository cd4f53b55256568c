"""A tmux server with the scripted screen in it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from fakes.terminal import Terminal

TESTS = Path(__file__).parent.parent
SCRIPTED = [sys.executable, str(TESTS / "fakes" / "run_scripted.py")]


def environment(folder: Path) -> dict[str, str]:
    """Return the variables that the scripted screen needs."""
    return {
        "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]),
        "QUANTCHAT_LOGS": str(folder / "logs"),
        "LC_ALL": "C.UTF-8",
    }


def command_line(command: list[str], folder: Path, **more: str) -> str:
    """Return `command` for a shell at the other end, which has no environment of ours."""
    variables = {**environment(folder), **more}
    named = [f"{name}={value}" for name, value in variables.items()]
    return shlex.join(["env", *named, *command])


@dataclass(frozen=True)
class Tmux:
    """A tmux server of our own."""

    folder: Path
    name: str

    def __call__(self, *arguments: str) -> str:
        """Run a command of tmux and return what it prints."""
        done = subprocess.run(
            ["tmux", "-u", "-L", self.name, "-f", os.devnull, *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, **environment(self.folder), "TMUX_TMPDIR": str(self.folder)},
            check=True,
        )
        return done.stdout

    def attach(self) -> Terminal:
        """Attach a client in a terminal of its own."""
        return Terminal(
            ["tmux", "-u", "-L", self.name, "attach"],
            columns=100,
            rows=30,
            env={**environment(self.folder), "TMUX_TMPDIR": str(self.folder)},
        )

    @property
    def text(self) -> str:
        """What the pane shows."""
        return self("capture-pane", "-p")

    def places_of(self, mark: str) -> list[tuple[int, int]]:
        """Return the cells (x, y) of the pane that show `mark`, as tmux counts cells."""
        self("set-option", "-g", "mode-keys", "vi")  # the cursor stops at the begin of a match
        self("copy-mode")
        self("send-keys", "-X", "top-line")
        self("send-keys", "-X", "start-of-line")
        self("send-keys", "-X", "search-forward-text", mark)
        places: list[tuple[int, int]] = []
        while True:
            x, y = self("display-message", "-p", "#{copy_cursor_x} #{copy_cursor_y}").split()
            place = int(x), int(y)
            if place in places:  # it has begun again at the top
                break
            places.append(place)
            self("send-keys", "-X", "search-again")
        self("send-keys", "-X", "cancel")
        return sorted(places, key=lambda one: (one[1], one[0]))

    def end(self) -> None:
        """End the server and what runs in it."""
        subprocess.run(
            ["tmux", "-L", self.name, "kill-server"],
            env={**os.environ, "TMUX_TMPDIR": str(self.folder)},
            capture_output=True,
            check=False,
        )
