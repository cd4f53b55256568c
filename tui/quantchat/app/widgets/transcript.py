"""The conversation with one variant; follows the end until the user scrolls away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.geometry import Region
from textual.strip import Strip
from textual.widgets import Static

from quantchat.app.widgets.blank_fill import blank_lines
from quantchat.app.widgets.failure_note import FailureNote
from quantchat.app.widgets.look import Look
from quantchat.app.widgets.stages import Stages
from quantchat.app.widgets.text_layout import quiet, untrusted
from quantchat.document import figures
from quantchat.session.conversation import Conversation, Turn
from quantchat.session.live_variant import LiveVariant
from quantchat.wire.messages import Failed
from quantchat.wire.variant import ANY_SERVER

if TYPE_CHECKING:
    from quantchat.app.widgets.turn_view import TurnView


TURNS_AT_ONCE = 12
"""Number of turns laid out at first, and each time the user scrolls above the first of them. Not
all turns are laid out, because the cost of a streamed token grows with the number of widgets."""
WHEEL_ROWS = 5
"""Rows of the added turns that are shown at once if they were added by the mouse wheel."""


class Transcript(VerticalScroll, can_focus=False):
    """Shows the newest turns of the conversation with this variant's answers."""

    DEFAULT_CSS = """
    Transcript {
        height: 1fr; scrollbar-size-vertical: 1;
        #note, #earlier { height: auto; padding: 0 1; margin-bottom: 1; color: $quiet; }
    }
    """

    def __init__(self, variant: LiveVariant) -> None:
        super().__init__()
        self._variant = variant
        self._note = Static(id="note")
        self._note.display = False
        self._earlier = Static(id="earlier")
        self._earlier.display = False
        self._stages = Stages(variant)
        self._failure = FailureNote()

        self.look = Look()
        """How turns are shown; call `show_look` after a change."""
        self._follows = True
        self._turns: list[Turn] = []
        self._views: dict[int, TurnView] = {}
        """The laid-out turns by number, the oldest first."""

    def compose(self) -> ComposeResult:
        """Lay out the note on loading, the number of earlier turns, the stages and the failure.

        `sync` mounts turns before the stages.
        """
        yield self._note
        yield self._earlier
        yield self._stages
        yield self._failure

    def on_mount(self) -> None:
        """Stay at the end whenever the text grows."""
        self.watch(self, "virtual_size", self._stay_at_end, init=False)

    def on_resize(self) -> None:
        """Stay at the end when the widget shrinks, too."""
        self._stay_at_end()

    def render_lines(self, crop: Region) -> list[Strip]:
        """Return the plain background."""
        return blank_lines(self, crop)

    async def sync(self, conversation: Conversation) -> None:
        """Show the newest turns of `conversation`; keep the views of turns still in it."""
        self._turns = conversation.turns
        # Compare turns, not their numbers: a new chat starts again at number 1.
        shown = [index for index, turn in enumerate(self._turns) if self._shows(turn)]
        new = self._turns[shown[-1] + 1 if shown else 0 :][-TURNS_AT_ONCE:]
        remaining = self._turns[-TURNS_AT_ONCE:] if new else [self._turns[index] for index in shown]
        by_number = {turn.number: turn for turn in remaining}
        for number, view in list(self._views.items()):
            if by_number.get(number) is not view.turn:
                await self._views.pop(number).remove()
        if new:
            views = self._make_views(new)
            await self.mount_all(views.values(), before=self._stages)
            self._views.update(views)
            self.follow(True)
        self._count_earlier()

    def _shows(self, turn: Turn) -> bool:
        view = self._views.get(turn.number)
        return view is not None and view.turn is turn

    def _make_views(self, turns: list[Turn]) -> dict[int, TurnView]:
        # Imported late: the Markdown parser would delay the first frame.
        from quantchat.app.widgets.turn_view import TurnView

        return {turn.number: TurnView(turn, self._variant.label, self.look) for turn in turns}

    def show_look(self) -> None:
        """Draw the turns as `look` says now."""
        for view in self._views.values():
            view.show_look()

    def _count_earlier(self) -> None:
        earlier = len(self._turns) - len(self._views)
        self._earlier.display = earlier > 0
        if earlier > 0:
            turns = figures.plural(earlier, "earlier turn")
            self._earlier.update(quiet(f"↑ {turns}"))

    @property
    def _more_above(self) -> bool:
        """Whether the user is at the top and earlier turns are not laid out."""
        return self.scroll_y <= 0 and len(self._views) < len(self._turns)

    async def _show_earlier(self, rows: int) -> None:
        """Lay out some earlier turns, and scroll up to show their last `rows` rows."""
        end = len(self._turns) - len(self._views)
        views = self._make_views(self._turns[max(0, end - TURNS_AT_ONCE) : end])
        first = next(iter(self._views.values()), self._stages)
        self._views = {**views, **self._views}
        self._count_earlier()
        await self.mount_all(views.values(), before=first)
        for view in views.values():
            view.tick()

        def go_up() -> None:
            y = max(0, first.virtual_region.y - rows)
            self.scroll_to(y=y, animate=False, immediate=True)

        self.call_after_refresh(go_up)

    def on_mouse_scroll_up(self) -> None:
        """Lay out earlier turns if the wheel reaches the first one."""
        self._go_above(WHEEL_ROWS)

    def _go_above(self, rows: int) -> bool:
        """Lay out earlier turns if the user is at the top; return whether there are any."""
        more = self._more_above
        if more:
            self.follow(False)
            self.run_worker(self._show_earlier(rows), exclusive=True)
        return more

    def tick(self) -> None:
        """Draw what arrived since the last tick."""
        for view in self._views.values():
            view.tick()
        self._stages.tick()

    def show_state(self) -> None:
        """Redraw the variant's state: note on loading, stages, failure."""
        self._stages.observe()
        self.show_trouble(self._variant.failure)
        self._describe()

    def show_trouble(self, trouble: Failed | None) -> None:
        """Show the failure `trouble`, or hide the note if it is None."""
        self._failure.show(trouble)

    def _describe(self) -> None:
        """Write the note above the turns: load time, decode mode, tokenizer, warnings."""
        ready = self._variant.ready
        self._note.display = ready is not None
        if ready is None:
            return
        model_info = ready.model_info
        parts = figures.load_parts(
            model_info.device, ready.import_s, ready.weights_s, ready.warmup_s
        )
        # With no-break spaces, a narrow column breaks the line only between parts. From ten seconds
        # on there are no decimals, or a load time in minutes would not fit at 120 columns.
        split = " + ".join(f"{name}\xa0{s:.{0 if s >= 9.95 else 1}f}" for name, s in parts)
        lines = [quiet(f"loaded in {figures.seconds(self._variant.load_s)} ({split})")]
        if model_info.device in ANY_SERVER:
            lines.append(quiet("model: ") + untrusted(model_info.model, "$quiet"))
        else:
            lines.append(quiet("decode mode: ") + untrusted(model_info.decoding, "$quiet"))
        if model_info.tokenizer:
            lines.append(quiet("tokenizer: ") + untrusted(model_info.tokenizer, "$quiet"))
        if not model_info.chat_template:
            hint = (
                'Set api = "chat" in the profile to use the server\'s template.'
                if model_info.device in ANY_SERVER
                else "Set `tokenizer` in the profile to a model that has one."
            )
            plain = "No chat template: the model continues the prompt as plain text."
            lines.append(Content.styled(f"{plain} {hint}", "$warning"))
        if model_info.slow_kernel:
            slow = Content.styled("SLOW KERNEL: ", "bold $error")
            lines.append(slow + untrusted(model_info.slow_kernel))
        if ready.note:
            lines.append(untrusted(ready.note))
        self._note.update(Content("\n").join(lines))

    # ------------------------------------------------------------ following the end

    @property
    def following(self) -> bool:
        """Whether the column scrolls along with new text."""
        return self._follows and not (self.is_anchored and self._anchor_released)

    @property
    def more_below(self) -> bool:
        """Whether there is text below the visible part and the column does not follow it."""
        return not self.following and self.scroll_y < self.max_scroll_y

    def follow(self, follow: bool) -> None:
        """Go to the end and follow it, or stay here."""
        self._follows = follow
        if not follow:
            self.anchor(False)
        elif self.is_anchored:
            self.anchor()
        self._stay_at_end()

    def _stay_at_end(self) -> None:
        """Anchor to the end while the text does not fit.

        An anchored container with room to spare would push its text down to its bottom.
        """
        overfull = self.max_scroll_y > 0
        if self._follows and overfull and not self.is_anchored:
            self.anchor()
        elif self.is_anchored and not overfull:
            self.anchor(False)
            # Immediately: a delayed scroll would release an anchor that was set meanwhile.
            self.scroll_to(y=0, animate=False, force=True, immediate=True)

    def to_divergence(self) -> bool:
        """Scroll to the newest divergence; return whether there is one."""
        for view in reversed(self._views.values()):
            if view.divergence.known:
                self.follow(False)
                row = view.divergence_y - self.region.y + self.scroll_y
                above = self.size.height // 3
                self.scroll_to(y=max(0, row - above), animate=False, immediate=True)
                return True
        return False

    async def to_turn(self, index: int, text: str) -> None:
        """Scroll to turn `index` of the conversation, to its first line that contains `text`.

        Upper and lower case are not distinguished.
        """
        self.follow(False)
        while index < len(self._turns) - len(self._views):
            await self._show_earlier(0)
        view = self._views[self._turns[index].number]
        view.tick()

        def go() -> None:
            y = view.virtual_region.y + view.line_of(text) - self.size.height // 3
            self.scroll_to(y=max(0, y), animate=False, immediate=True)

        self.call_after_refresh(go)

    def scroll_pages(self, pages: int) -> None:
        """Scroll by `pages` (negative is up); at the end, follow it again."""
        step = pages * max(1, self.size.height - 2)
        if step < 0 and self._go_above(-step):
            return
        if self.scroll_y + step >= self.max_scroll_y:
            self.follow(True)
        else:
            # Immediately: the next key may come before the next refresh and starts from here.
            self.scroll_relative(y=step, animate=False, immediate=True)
