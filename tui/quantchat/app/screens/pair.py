"""The dialog that chooses which two variants are shown."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from quantchat.app.widgets.dialog import Dialog
from quantchat.app.widgets.text_layout import untrusted
from quantchat.session.comparison import Comparison
from quantchat.session.live_variant import LiveVariant


class PairScreen(ModalScreen["tuple[int, int] | None"]):
    """Returns the indices of the left and the right variant, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("escape", "dismiss", "Cancel"),
        ("left,right", "other_list", "Other side"),
    ]
    DEFAULT_CSS = """
    PairScreen {
        .dialog { height: auto; }
        Horizontal { height: auto; }
        Vertical.side { width: 1fr; height: auto; }
        OptionList { height: auto; max-height: 16; }
        .left { color: $side-left; text-style: bold; padding: 0 1; }
        .right { color: $side-right; text-style: bold; padding: 0 1; }
        #complaint { color: $error; height: 1; padding: 0 1; }
    }
    """

    def __init__(self, comparison: Comparison) -> None:
        super().__init__()
        self._variants = comparison.variants
        self._pair = comparison.pair

    def compose(self) -> ComposeResult:
        """Lay out a list for each side."""
        keys = "↑↓: choose · ←→: other side · Enter: show · Esc: cancel"
        with Dialog("Show which two variants?", keys):
            with Horizontal():
                for side in ("left", "right"):
                    with Vertical(classes="side"):
                        yield Static(side, classes=side)
                        yield OptionList(*map(_option, self._variants), id=side)
            yield Static(id="complaint")

    def on_mount(self) -> None:
        """Highlight the pair that is shown now."""
        for side, index in zip(("left", "right"), self._pair, strict=True):
            self.query_one(f"#{side}", OptionList).highlighted = index
        self.query_one("#left").focus()

    @on(OptionList.OptionSelected)
    def _choose(self) -> None:
        left, right = (
            self.query_one(f"#{side}", OptionList).highlighted for side in ("left", "right")
        )
        if left is None or right is None or left == right:
            self.query_one("#complaint", Static).update("Choose two different variants.")
            return
        self.dismiss((left, right))

    def action_other_list(self) -> None:
        """Focus the other list."""
        self.focus_next(OptionList)


def _option(variant: LiveVariant) -> Option:
    spec = variant.spec
    return Option(
        untrusted(variant.label, "bold")
        + "\n"
        + untrusted(f"{variant.state.value} · {spec.engine} · {spec.model}", "$quiet")
    )
