"""One column of the screen: header, transcript and live panel of one variant."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Vertical

from quantchat.app.memory_track import MemoryTrack
from quantchat.app.widgets.column_header import ColumnHeader
from quantchat.app.widgets.live_panel import LivePanel
from quantchat.app.widgets.transcript import Transcript
from quantchat.session.conversation import Answer, Conversation
from quantchat.session.live_variant import LiveVariant


class VariantColumn(Vertical):
    """Shows the header, the conversation and the live panel of `variant`."""

    DEFAULT_CSS = """
    VariantColumn { width: 1fr; height: 1fr; }
    VariantColumn.-left { border-left: vkey $side-left; }
    VariantColumn.-right { border-left: vkey $side-right; }
    """

    def __init__(self, variant: LiveVariant) -> None:
        super().__init__()
        self.variant = variant
        self.memory = MemoryTrack()
        self.header = ColumnHeader(variant)
        self.transcript = Transcript(variant)
        self.panel = LivePanel(self.memory)

    def compose(self) -> ComposeResult:
        """Lay out the parts from top to bottom."""
        yield self.header
        yield self.transcript
        yield self.panel

    def on_mount(self) -> None:
        """Draw the variant's state."""
        self.show_state()

    def set_side(self, *, left: bool) -> None:
        """Make this the left column, or the right one."""
        self.set_class(left, "-left").set_class(not left, "-right")
        self.header.side = self.panel.side = "$side-left" if left else "$side-right"
        self.header.refresh()
        self.panel.refresh()

    def show_state(self) -> None:
        """Redraw the variant's state."""
        self.transcript.show_state()
        self.header.refresh()
        if self.variant.pid is None:
            self.memory.clear()

    def show_hang(self, now_s: float) -> bool:
        """Show or remove the note that the worker seems to hang; return whether it does.

        `now_s` is the current time of the monotonic clock.
        """
        silence = self.variant.suspected_hang(now_s)
        if silence is not None or self.header.silent:
            self.header.silent = silence is not None
            self.header.refresh()
            self.transcript.show_trouble(silence or self.variant.failure)
        return silence is not None

    def tick(self, conversation: Conversation) -> None:
        """Draw what arrived since the last tick."""
        self.transcript.tick()
        self.panel.observe(self.newest_answer(conversation))
        more_below = self.transcript.more_below
        if more_below != self.header.more_below:
            self.header.more_below = more_below
            self.header.refresh()

    def newest_answer(self, conversation: Conversation) -> Answer | None:
        """Return the variant's last answer, running or complete; None if it has none."""
        for turn in reversed(conversation.turns):
            answer = turn.answers.get(self.variant.label)
            if answer is not None:
                return answer
        return None
