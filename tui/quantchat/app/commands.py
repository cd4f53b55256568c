"""Every command of the comparison screen: the keys, the key line, the help and the palette.

Keys are chosen so that they arrive over SSH and through tmux and screen: control characters that
have a byte of their own and that neither multiplexer takes as its prefix (Ctrl+B, Ctrl+A), and
function keys. None is one that TextArea edits with, but for F6 and F7 (select a line, select all).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from textual.binding import Binding

Group = Literal["Prompt", "Conversation", "Columns", "Output", "Program"]

_NAMES = {
    "enter": "Enter",
    "escape": "Esc",
    "up": "↑",
    "down": "↓",
    "pageup": "PgUp",
    "pagedown": "PgDn",
    "ctrl+right_square_bracket": "^]",
    "ctrl+underscore": "^_",
    "ctrl+circumflex_accent": "^^",
    "ctrl+backslash": "^\\",
}


@dataclass(frozen=True)
class Command:
    """One thing the user can do. `id` names the action and the binding alike."""

    id: str
    keys: str
    """As Textual names them, several with commas; the first one is shown."""
    label: str
    """A word or two for the key line."""
    help: str
    group: Group
    rank: int = 99
    """Place in the key line, which shows as many as fit."""
    in_prompt: bool = False
    """Belongs to the prompt box and means nothing outside it."""

    @property
    def key(self) -> str:
        """The key as people write it: `^S`, `F3`, `Esc`."""
        first = self.keys.split(",")[0]
        if first.startswith("ctrl+") and first not in _NAMES:
            return f"^{first[len('ctrl+') :].upper()}"
        return _NAMES.get(first, first.upper())

    def binding(self, namespace: str = "") -> Binding:
        """As Textual wants it; `namespace` is where the action lives (`screen.`), if elsewhere."""
        return Binding(
            self.keys, namespace + self.id, self.help, show=False, key_display=self.key, id=self.id
        )


COMMANDS: tuple[Command, ...] = (
    Command("send", "enter", "send", "Send the prompt to both variants", "Prompt", 0, True),
    Command(
        "newline",
        "ctrl+j,shift+enter,alt+enter",
        "newline",
        "Start a new line; Shift+Enter and Alt+Enter too, where the terminal tells them apart",
        "Prompt",
        in_prompt=True,
    ),
    Command(
        "recall_older",
        "up",
        "older",
        "From the first line: recall the prompt before; the draft is kept",
        "Prompt",
        in_prompt=True,
    ),
    Command(
        "recall_newer",
        "down",
        "newer",
        "From the last line: recall the prompt after, and at the end the draft",
        "Prompt",
        in_prompt=True,
    ),
    Command(
        "stop",
        "escape",
        "stop",
        "Stop both answers; what was said stays. Or: leave editing an earlier prompt",
        "Conversation",
        1,
    ),
    Command(
        "order",
        "ctrl+t",
        "order",
        "Together (both decode at once, contended) or in turn (one at a time, may be quoted)",
        "Conversation",
        5,
    ),
    Command("regenerate", "ctrl+r", "again", "Ask the last prompt again", "Conversation", 7),
    Command("edit", "f4", "edit", "Edit the last prompt and send it again", "Conversation", 9),
    Command(
        "new_chat",
        "ctrl+n",
        "new chat",
        "Begin a new chat; what is not saved is kept",
        "Conversation",
        8,
    ),
    Command(
        "forget",
        "f8",
        "forget oldest",
        "Forget the oldest turn, when the context is full",
        "Conversation",
        17,
    ),
    Command("settings", "f2", "settings", "System prompt and sampling", "Conversation", 6),
    Command(
        "maximise",
        "f3",
        "maximise",
        "The left column alone, the right one, both; on a narrow terminal the other tab",
        "Columns",
        4,
    ),
    Command(
        "follow",
        "ctrl+g",
        "follow",
        "Go to the end and follow it, or stay where you are",
        "Columns",
        10,
    ),
    Command(
        "divergence",
        "ctrl+right_square_bracket",
        "where they part",
        "Go to the first token at which the greedy answers part",
        "Columns",
        11,
    ),
    Command(
        "conversation_up", "pageup", "up", "Scroll the conversation up", "Columns", in_prompt=True
    ),
    Command(
        "conversation_down",
        "pagedown",
        "down",
        "Scroll the conversation down",
        "Columns",
        in_prompt=True,
    ),
    Command("swap", "f10", "swap", "Let left and right change places", "Columns", 13),
    Command("pair", "ctrl+o", "pair", "Choose which two variants to show", "Columns", 11),
    Command("retry", "f9", "retry", "Load again what failed or hangs", "Columns", 16),
    Command(
        "measure",
        "f12",
        "measure",
        "Measure both in rounds: B against A, with an interval that may be quoted",
        "Output",
        5,
    ),
    Command(
        "cross_perplexity",
        "ctrl+underscore",
        "surprise",
        "Each answer as the other variant reads it: its perplexity, and which tokens surprise it",
        "Output",
        16,
    ),
    Command(
        "agreement",
        "ctrl+circumflex_accent",
        "A against A",
        "How early each variant parts from itself: in turn, together, with another cache and batch",
        "Output",
        17,
    ),
    Command(
        "blind",
        "ctrl+backslash",
        "blind",
        "Vote blindly on which answers better: the prompts of this conversation, or the profile's",
        "Output",
        16,
    ),
    Command("save", "ctrl+s", "save", "Save a snapshot of this comparison", "Output", 3),
    Command("copy_left", "f5", "copy left", "Copy the left answer", "Output", 14),
    Command("copy_right", "f6", "copy right", "Copy the right answer", "Output", 15),
    Command("save_answers", "f7", "to file", "Save the last answers to a text file", "Output", 18),
    Command("log", "ctrl+l", "log", "What a worker's libraries printed", "Output", 12),
    Command("theme", "f11", "theme", "Dark, light, high contrast", "Program", 19),
    Command("help", "f1", "help", "Keys and words", "Program", 2),
    Command("command_palette", "ctrl+p", "palette", "Each command by its name", "Program", 20),
    Command(
        "quit",
        "ctrl+q",
        "quit",
        "End the workers and leave; twice, where something is not saved (^S saves)",
        "Program",
        2,
    ),
)


def command(id_: str) -> Command:
    """The command `id_`. Raises KeyError."""
    return _BY_ID[id_]


_BY_ID = {one.id: one for one in COMMANDS}
