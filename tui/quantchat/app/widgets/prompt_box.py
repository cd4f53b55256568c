"""The prompt box: one for both variants, with a history of sent prompts."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.binding import BindingType
from textual.widgets import TextArea

from quantchat.app.commands import COMMANDS, command
from quantchat.app.messages import PromptSent, ScrollRequested
from quantchat.app.prompt_history import PromptHistory
from quantchat.app.textual_workarounds import XTERM_SHIFT_ENTER

_COMMAND_KEYS = ("f6", "f7")
"""Keys that TextArea binds (select line, select all) and that this app needs for commands."""
_JOINERS = ("\u200c", "\u200d")
"""Zero-width characters that spelling needs (Persian, Hindi, emoji); `neutralise` keeps them."""


class PromptBox(TextArea):
    """Enter sends. ↑ on the first line and ↓ on the last line walk through sent prompts."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *(one.binding() for one in COMMANDS if one.in_prompt and one.id != "send"),
        *(one.binding("screen.") for one in COMMANDS if one.default_keys in _COMMAND_KEYS),
    ]

    DEFAULT_CSS = """
    PromptBox {
        height: auto; min-height: 1; max-height: 8; padding: 0 1;
        border: none; border-left: outer $primary; background: $surface;
        &:focus { border: none; border-left: outer $primary; }
        &.-editing { border-left: outer $warning; }
        & .text-area--cursor-line { background: transparent; }
        & .text-area--placeholder { color: $quiet; }
    }
    """

    def __init__(self) -> None:
        super().__init__(soft_wrap=True, show_line_numbers=False, id="prompt")
        self._sent: list[str] = []
        self._history: PromptHistory | None = None
        self._position = 0
        """Index into `_sent`; the length of `_sent` stands for the draft."""
        self._draft = ""

    def send(self) -> None:
        """Send the text and empty the box at once: keys typed from now on are the next prompt."""
        text = self.text
        if text.strip():
            self.text = ""
            self.post_message(PromptSent(text))

    def give_back(self, text: str) -> None:
        """Put `text`, which could not be sent, before the text that was typed meanwhile."""
        self.set_text(text + self.text)

    async def use_history(self, history: PromptHistory) -> None:
        """Recall the prompts of earlier sessions too, and remember those of this one."""
        before = await history.read()
        self._history = history
        self._sent[:0] = before
        self._position += len(before)

    def remember(self, text: str) -> None:
        """Add `text` to the history and start an empty draft."""
        if not self._sent or self._sent[-1] != text:
            self._sent.append(text)
            if self._history is not None:
                self._history.add(text)
        self._position, self._draft = len(self._sent), ""

    def set_text(self, text: str) -> None:
        """Show `text` with the cursor at its end."""
        self.text = text
        self.move_cursor(self.document.end)

    def check_consume_key(self, key: str, character: str | None = None) -> bool:
        """Return whether the key is text; Alt with a letter is not, although it has a character."""
        return not key.startswith("alt+") and super().check_consume_key(key, character)

    async def _on_key(self, event: events.Key) -> None:
        # TextArea inserts a newline for Enter before it looks at bindings, and ignores characters
        # that Python does not call printable.
        if event.key in command("send").keys.split(","):
            event.stop()
            event.prevent_default()
            self.send()
        elif event.key in ("enter", XTERM_SHIFT_ENTER):
            event.stop()
            event.prevent_default()
            self.action_newline()
        elif event.key.startswith("alt+"):
            event.prevent_default()  # a command, or nothing: never the letter
        elif event.character in _JOINERS:
            event.stop()
            event.prevent_default()
            self._replace_via_keyboard(event.character, *self.selection)

    def action_newline(self) -> None:
        """Start a new line."""
        self._replace_via_keyboard("\n", *self.selection)
        self.scroll_cursor_visible()

    def action_conversation_up(self) -> None:
        """Scroll the conversation up, not the prompt."""
        self.post_message(ScrollRequested(-1))

    def action_conversation_down(self) -> None:
        """Scroll the conversation down, not the prompt."""
        self.post_message(ScrollRequested(1))

    def action_recall_older(self) -> None:
        """Recall the previous prompt if the cursor is on the first line, else move up."""
        if self.navigator.is_first_wrapped_line(self.cursor_location):
            self._recall(self._position - 1)
        else:
            self.action_cursor_up()

    def action_recall_newer(self) -> None:
        """Recall the next prompt if the cursor is on the last line, else move down."""
        if self.navigator.is_last_wrapped_line(self.cursor_location):
            self._recall(self._position + 1)
        else:
            self.action_cursor_down()

    def _recall(self, place: int) -> None:
        if not 0 <= place <= len(self._sent) or place == self._position:
            return
        if self._position == len(self._sent):
            self._draft = self.text
        self._position = place
        self.set_text(self._draft if place == len(self._sent) else self._sent[place])
