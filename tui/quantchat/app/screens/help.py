"""The help screen: the keys, the terms, and why a figure is not known."""

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

from quantchat.app.commands import (
    COMMANDS,
    OPEN_PROFILE,
    PROFILE_COMMANDS,
    SNAPSHOT_COMMANDS,
    Command,
)
from quantchat.app.widgets.dialog import Dialog
from quantchat.app.widgets.text_layout import quiet, untrusted

_TERMS = (
    ("tok/s", "decode throughput, 1000 ÷ TPOT: now = over the last second, avg = whole answer"),
    ("TPOT", "time per output token in ms: (time of last token − time of first) ÷ (tokens − 1)"),
    ("TTFT", "time to first token: prompt received by the worker → first output token"),
    (
        "thoughts",
        "reasoning that a model writes before its answer; counted in tok/s, not part of the answer",
    ),
    ("TTFA", "time to first token of the answer, after the thoughts; without thoughts it is TTFT"),
    ("prefill", "computing the prompt, before the first output token"),
    ("cached", "prompt tokens taken from the KV cache instead of being computed again"),
    ("incl. network", "the TTFT of a server includes the time that the network takes"),
    ("ITL", "inter-token latency: time from one output token to the next"),
    (
        "acceptance",
        "in speculative decoding a small model, the draft, proposes tokens: how many of them the "
        "model accepted, in %",
    ),
    ("p50, p95, p99", "percentiles: 50, 95 or 99 % of the values are at or below this one"),
    (
        "chunks",
        "pieces of text from a server, shown instead of tokens until it reports its token count",
    ),
    ("together", "both variants decode at once and share the machine (contended)"),
    (
        "one at a time",
        "one variant decodes while the other waits; use these figures when you quote a result",
    ),
    (
        "decode modes",
        "ways to compute tokens: generate, eager, compile, graph. If the modes of both sides "
        "differ, the ratio of their speeds compares the modes too, not only the quantization",
    ),
    ("RAM", "main memory of the worker process"),
    ("VRAM", "GPU memory of the worker process"),
    ("weights", "memory of the model's parameters"),
    ("draft", "memory of the model that drafts tokens (speculative decoding)"),
    ("KV", "KV cache: keys and values of all tokens so far, so that they are not computed again"),
    (
        "other",
        "on a GPU: other tensors of torch; on a CPU: all other memory of the process",
    ),
    ("slack", "GPU memory that torch has reserved but not allocated"),
    ("non-torch", "GPU memory not reserved by torch: CUDA context, libraries"),
    (
        "same for",
        "e.g. same for 12 tokens, then ‘cat’ 0.54 (‘dog’ 0.42): both answers begin with the same "
        "12 tokens. This side's next token is ‘cat’, to which it gave the probability 0.54; to "
        "‘dog’, the next token of the other side, it gave 0.42",
    ),
    ("single answer", "a ratio from one answer of each side: not a measurement (F12 measures)"),
    ("–", "not known; never 0"),
)
_NOTE = (
    "Some terminals use F1, F10 or F11 themselves: ^P finds every command by its name. "
    "Ctrl+C copies text selected with the mouse; it never quits."
)


_START = (
    ("✓", "the first two variants of the profile fit into the free memory together"),
    (
        "≈",
        "they fit once loaded, but loading both at once may need more than is free; or they share"
        " several GPUs, where there may not be room for both",
    ),
    ("✗", "they do not fit, or torch cannot use the GPU here"),
    ("?", "not known: a model is not on this machine yet, and its name states no size"),
    (
        "downloads",
        "how much is downloaded when you open the profile. “about” means that the size is "
        "estimated from the model's name; `quantchat plan PROFILE` reads it from the hub",
    ),
    (
        "quantizes",
        "the checkpoints that quantchat makes on this machine when you first open the profile",
    ),
    ("recovered", "an unsaved conversation, kept when a new one replaced it or quantchat ended"),
)
_START_NOTE = (
    "Tab changes between profiles and snapshots. To compare models without a profile, start "
    "`quantchat MODEL` or `quantchat MODEL_A MODEL_B` in the shell."
)


def start_help() -> HelpScreen:
    """Return the help of the start screen."""
    commands = (
        OPEN_PROFILE,
        *PROFILE_COMMANDS,
        *SNAPSHOT_COMMANDS,
        *(command for command in COMMANDS if command.group == "Program"),
    )
    return HelpScreen(commands, terms=_START, note=_START_NOTE)


class HelpScreen(ModalScreen[None]):
    """Shows the keys and terms; Esc or F1 closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape,f1,q", "dismiss", "Close")]
    DEFAULT_CSS = """
    HelpScreen {
        .dialog { height: 90%; padding: 0 1; }
        Grid {
            grid-size: 2; grid-columns: 11 1fr; grid-rows: auto; height: auto; margin-bottom: 1;
            &.terms { grid-columns: 17 1fr; }
        }
        Static { height: auto; }
        .title { color: $primary; text-style: bold; }
        .key { text-style: bold; padding: 0 0 0 2; }
    }
    """

    def __init__(
        self,
        commands: Sequence[Command] = COMMANDS,
        unknown: Sequence[tuple[str, str]] = (),
        *,
        terms: Sequence[tuple[str, str]] = _TERMS,
        note: str = _NOTE,
    ) -> None:
        """Show `commands`, `terms` and `note`.

        `unknown` has, for each figure that is not known, its name and the reason.
        """
        super().__init__()
        self._commands = commands
        self._unknown = unknown
        self._terms = terms
        self._note = note

    def compose(self) -> ComposeResult:
        """Lay out the keys by group, then the terms, then the unknown figures."""
        with Dialog("Help"), VerticalScroll():
            for group in dict.fromkeys(command.group for command in self._commands):
                commands = [command for command in self._commands if command.group == group]
                yield from _table(group, [(command.key, command.help) for command in commands])
            yield from _table("Terms", self._terms, "terms")
            if self._unknown:
                yield from _table("Unknown figures and why", self._unknown, "terms")
            yield Static(quiet(self._note))


def _table(title: str, rows: Iterable[tuple[str, str]], classes: str = "") -> Iterator[Widget]:
    yield Static(title, classes="title")
    with Grid(classes=classes):
        for left, right in rows:
            yield Static(Content(left), classes="key")
            yield Static(untrusted(right))
