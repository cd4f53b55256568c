"""The commands of the start screen and the comparison screen.

The key bindings, the help, the palette and most key lines are made from the lists in this module.
Every command has a key that works over SSH and inside tmux and GNU screen. Such a key is one of:

- a function key
- Ctrl with a character that terminals send as one byte of its own, except the prefix keys of the
  two multiplexers (Ctrl+B, Ctrl+A)
- Alt with a letter, which terminals send as ESC and the letter, except Alt+B and Alt+F, which move
  the cursor by words
- an arrow, a page key, Enter, Esc, Space or Del, alone or with Alt or Shift
- a letter, where no text is typed

Textual's TextArea uses two of these keys for editing, F6 (select a line) and F7 (select all).
`PromptBox` uses them for our commands instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

# Textual reads its settings from the environment when it is imported. quantchat sets them before
# that, from the user's preferences. So this module, which `preferences` imports, does not import
# Textual at run time.
if TYPE_CHECKING:
    from textual.binding import Binding

Group = Literal["Prompt", "Conversation", "Columns", "Output", "Profiles", "Snapshots", "Program"]

_NAMES = {
    "enter": "Enter",
    "escape": "Esc",
    "up": "↑",
    "down": "↓",
    "left": "←",
    "right": "→",
    "pageup": "PgUp",
    "pagedown": "PgDn",
    "space": "Space",
    "delete": "Del",
    "ctrl+right_square_bracket": "^]",
    "ctrl+underscore": "^_",
    "ctrl+circumflex_accent": "^^",
    "ctrl+backslash": "^\\",
}
"""Textual's name of a key → its name on the screen."""


@dataclass(frozen=True)
class Command:
    """One command. `id` is the name of its action and of its binding."""

    id: str
    default_keys: str
    """Key names of Textual, separated by commas; the screen shows the first."""
    label: str
    """A word or two for the key line."""
    help: str
    group: Group
    rank: int = 99
    """Position in the key line, which shows as many commands as fit; 99: never shown there."""
    in_prompt: bool = False
    """Works only while the prompt box has the focus."""

    @property
    def keys(self) -> str:
        """The keys in use: those of the user's preferences, else the default ones."""
        return _keymap.get(self.id, self.default_keys)

    @property
    def key(self) -> str:
        """The key as the screen writes it: `^S`, `F3`, `Esc`."""
        first = self.keys.split(",")[0]
        modifier, _, key = first.rpartition("+")
        if first in _NAMES:
            return _NAMES[first]
        if modifier == "ctrl" and len(key) == 1:
            return f"^{key.upper()}"
        if modifier:
            return f"{modifier.title()}+{_NAMES.get(key, key.upper())}"
        return key if len(key) == 1 else key.upper()

    def binding(self, namespace: str = "") -> Binding:
        """Return Textual's binding; `namespace` (`screen.`, `app.`) says what has the action."""
        from textual.binding import Binding

        return Binding(self.default_keys, namespace + self.id, self.help, show=False, id=self.id)


_keymap: dict[str, str] = {}
"""Id of a command → its keys in the user's preferences."""


def use_keys(keys: Mapping[str, str]) -> None:
    """Use `keys` (id of a command → its keys) in place of the default keys."""
    _keymap.clear()
    _keymap.update(keys)


COMMANDS: tuple[Command, ...] = (
    Command("send", "enter", "send", "Send the prompt to both variants", "Prompt", 0, True),
    Command(
        "newline",
        "ctrl+j,shift+enter,alt+enter",
        "new line",
        "Start a new line; also Shift+Enter and Alt+Enter, if the terminal reports them",
        "Prompt",
        in_prompt=True,
    ),
    Command(
        "recall_older",
        "up",
        "older prompt",
        "On the first line: recall the previous prompt; your draft is kept",
        "Prompt",
        in_prompt=True,
    ),
    Command(
        "recall_newer",
        "down",
        "newer prompt",
        "On the last line: recall the next prompt, and after the newest one your draft",
        "Prompt",
        in_prompt=True,
    ),
    Command(
        "stop",
        "escape",
        "stop",
        "Stop both answers; text that has arrived stays. If no answer is running: take back a "
        "queued prompt, or else cancel editing",
        "Conversation",
        1,
    ),
    Command(
        "order",
        "ctrl+t",
        "together / one at a time",
        "Each press switches between: both variants decode together (contended), one at a time",
        "Conversation",
        5,
    ),
    Command(
        "regenerate",
        "ctrl+r",
        "regenerate",
        "Regenerate the last answers from the same prompt",
        "Conversation",
        7,
    ),
    Command("edit", "f4", "edit", "Edit the last prompt and send it again", "Conversation", 9),
    Command(
        "new_chat",
        "ctrl+n",
        "new chat",
        "Start a new chat; an unsaved conversation is kept for recovery",
        "Conversation",
        8,
    ),
    Command(
        "remove_oldest",
        "f8",
        "remove oldest",
        "Remove the oldest turn, to make room in a full context",
        "Conversation",
        17,
    ),
    Command(
        "ask_file",
        "alt+o",
        "prompts from file",
        "Send the prompts of a file, one after another",
        "Conversation",
    ),
    Command(
        "ask_missing",
        "alt+m",
        "ask missing",
        "Send each variant the prompts that it missed while not shown, failed or unloaded",
        "Conversation",
        25,
    ),
    Command(
        "history",
        "alt+h",
        "history",
        "Change which earlier answers the chat continues from. Each press goes to the next choice: "
        "each side's own, the left side's for both, the right side's for both",
        "Conversation",
        24,
    ),
    Command(
        "earlier_answers",
        "alt+left",
        "earlier answers",
        "Show the answers that were replaced by regenerating; the chat continues from those shown",
        "Conversation",
    ),
    Command(
        "later_answers",
        "alt+right",
        "later answers",
        "Go back from earlier answers to later ones",
        "Conversation",
    ),
    Command("settings", "f2", "settings", "System prompt and sampling settings", "Conversation", 6),
    Command(
        "maximise",
        "f3",
        "maximise",
        "Each press goes to the next view: the left column alone, the right column alone, both. In "
        "a narrow terminal, which shows one column at a time: the other column",
        "Columns",
        4,
    ),
    Command(
        "follow",
        "ctrl+g",
        "follow",
        "Go to the end and follow new text, or stop following",
        "Columns",
        10,
    ),
    Command(
        "divergence",
        "ctrl+right_square_bracket",
        "divergence",
        "Go to the first token at which the two greedy answers differ",
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
    Command(
        "thoughts",
        "alt+t",
        "thoughts",
        "Open or fold the thoughts that models write before their answers",
        "Columns",
        21,
    ),
    Command(
        "raw",
        "alt+r",
        "raw",
        "Show outputs as the models wrote them. Each press goes to the next choice: the left side, "
        "the right side, both, none",
        "Columns",
        22,
    ),
    Command(
        "prompts", "alt+p", "long prompts", "Show long prompts whole, or fold them", "Columns", 23
    ),
    Command("swap", "f10", "swap", "Swap the left and the right column", "Columns", 13),
    Command("pair", "ctrl+o", "pair", "Choose which two variants to show", "Columns", 11),
    Command(
        "reload", "f9", "reload", "Reload a variant that failed or does not respond", "Columns", 16
    ),
    Command(
        "measure",
        "f12",
        "measure",
        "Measure both variants in rounds: ratio B ÷ A with a 95 % confidence interval",
        "Output",
        5,
    ),
    Command(
        "cross_perplexity",
        "ctrl+underscore",
        "cross-perplexity",
        "Compute the perplexity of each answer under the other variant; mark its unlikely tokens",
        "Output",
        16,
    ),
    Command(
        "agreement",
        "ctrl+circumflex_accent",
        "agreement",
        "Compare each variant with itself: how early do two runs of the same prompt diverge?",
        "Output",
        17,
    ),
    Command(
        "vote_blind",
        "ctrl+backslash",
        "vote blind",
        "Choose the better answer without knowing which variant wrote it",
        "Output",
        16,
    ),
    Command("save", "ctrl+s", "save", "Save a snapshot of this comparison", "Output", 3),
    Command("copy_left", "f5", "copy left", "Copy the left answer", "Output", 14),
    Command("copy_right", "f6", "copy right", "Copy the right answer", "Output", 15),
    Command(
        "save_answers",
        "f7",
        "save answers",
        "Save the last prompt and its answers to a Markdown file",
        "Output",
        18,
    ),
    Command(
        "export_chat",
        "alt+e",
        "export chat",
        "Save the whole conversation, with both sides' answers, to a Markdown file",
        "Output",
    ),
    Command(
        "diff",
        "alt+d",
        "diff",
        "Show a word diff of the last two answers",
        "Output",
        17,
    ),
    Command(
        "search", "alt+s", "search", "Search prompts and answers of the conversation", "Output", 17
    ),
    Command("log", "alt+l", "log", "Show the log of a worker process", "Output", 12),
    Command(
        "redraw",
        "ctrl+l",
        "redraw",
        "Draw the screen again, if another program wrote on the terminal",
        "Program",
    ),
    Command("theme", "f11", "theme", "Next theme: dark, light, high contrast", "Program", 19),
    Command("help", "f1", "help", "Show the keys and the terms of the screen", "Program", 2),
    Command("command_palette", "ctrl+p", "commands", "Find a command by its name", "Program", 20),
    Command(
        "quit",
        "ctrl+q",
        "quit",
        "Quit; asks for a second press if something is not saved",
        "Program",
        2,
    ),
)


PROFILE_COMMANDS: tuple[Command, ...] = (
    Command(
        "pick",
        "p",
        "pick",
        "Measure each variant of the profile, one after the other, and recommend one",
        "Profiles",
    ),
    Command(
        "load_test",
        "l",
        "load test",
        "Measure each variant of the profile with many requests at once",
        "Profiles",
    ),
)
"""The commands of the start screen for the highlighted profile, besides opening it."""


OPEN_PROFILE = Command("open", "enter", "open", "Open the selected profile", "Profiles", 0)
"""Shown on the start screen; the list of profiles itself handles Enter."""


SNAPSHOT_COMMANDS: tuple[Command, ...] = (
    Command("open", "enter", "open", "Show the selected snapshot", "Snapshots", 0),
    Command(
        "mark", "space", "mark", "Mark the snapshot for a comparison or report", "Snapshots", 1
    ),
    Command("compare", "c", "compare", "Compare the marked snapshots", "Snapshots", 2),
    Command(
        "report",
        "r",
        "report",
        "Write a report (HTML) of the marked snapshots, or of the selected one",
        "Snapshots",
        3,
    ),
    Command(
        "rerun",
        "m",
        "rerun",
        "Open the variants of the snapshot and repeat its measurement",
        "Snapshots",
        4,
    ),
    Command(
        "continue_chat",
        "n",
        "continue",
        "Open the variants of the snapshot and continue its chat",
        "Snapshots",
        5,
    ),
    Command("delete", "delete", "delete", "Delete the snapshot; asks first", "Snapshots", 6),
)
"""The commands of the start screen, for its list of snapshots."""


def command(id_: str) -> Command:
    """Return the command with the id `id_`. Raises KeyError."""
    return _BY_ID[id_]


_BY_ID = {listed.id: listed for listed in COMMANDS}
