"""Help: each key, what the words mean, and why a figure is not known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Grid, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Static

from quantchat.app.commands import COMMANDS, Command
from quantchat.app.widgets.dialog import Dialog
from quantchat.app.widgets.text_layout import outside, quiet

_WORDS = (
    ("tok/s", "decode throughput: 1000 ÷ TPOT; now is over the last second, avg over the answer"),
    ("TTFT", "prompt received by the worker → first output token; loading is never in it"),
    ("ITL", "gap between one output token and the next, with its 50th, 95th, 99th percentile"),
    ("together", "both decode at once and share the machine: what chatting feels like; contended"),
    ("in turn", "one decodes at a time, the order balanced from turn to turn: what may be quoted"),
    ("KV", "the KV cache: keys and values kept of the prompt and the answer so far"),
    (
        "same for",
        "output tokens that both answers begin with; then the token each goes on with, its",
    ),
    ("", "probability, and in brackets the one that this variant gave the other's token"),
    ("–", "not known: never 0"),
)
_NOTE = (
    "A terminal may keep a function key for itself (F1, F10, F11 often): ^P finds every command by "
    "its name. Ctrl+C copies what is selected with the mouse; it never quits."
)


class HelpScreen(ModalScreen[None]):
    """Closed by Esc, or by the key that opened it."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape,f1,q", "dismiss", "Close")]
    DEFAULT_CSS = """
    HelpScreen {
        .dialog { height: 90%; padding: 0 1; }
        Grid {
            grid-size: 2; grid-columns: 11 1fr; grid-rows: auto; height: auto; margin-bottom: 1;
        }
        Static { height: auto; }
        .title { color: $primary; text-style: bold; }
        .key { text-style: bold; padding: 0 0 0 2; }
    }
    """

    def __init__(
        self, commands: Sequence[Command] = COMMANDS, unknown: Sequence[tuple[str, str]] = ()
    ) -> None:
        """`commands`: what can be done now. `unknown`: whose figure is not known, and why."""
        super().__init__()
        self._commands = commands
        self._unknown = unknown

    def compose(self) -> ComposeResult:
        """Keys by group, then words, then what is not known here."""
        with Dialog("Help"), VerticalScroll():
            for group in dict.fromkeys(one.group for one in self._commands):
                yield from _table(
                    group, [(one.key, one.help) for one in self._commands if one.group == group]
                )
            yield from _table("Words", _WORDS)
            if self._unknown:
                yield from _table("Not known here", self._unknown)
            yield Static(quiet(_NOTE))


def _table(title: str, rows: Iterable[tuple[str, str]]) -> Iterator[Widget]:
    yield Static(title, classes="title")
    with Grid():
        for left, right in rows:
            yield Static(Content(left), classes="key")
            yield Static(outside(right))
