"""The conversation with one variant, following its end until the reader scrolls away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.geometry import Region
from textual.strip import Strip
from textual.widgets import Static

from quantchat.app.widgets.blank_fill import ground
from quantchat.app.widgets.failure_note import FailureNote
from quantchat.app.widgets.stages import Stages
from quantchat.app.widgets.text_layout import outside, quiet
from quantchat.document import figures
from quantchat.session.conversation import Conversation, Turn
from quantchat.session.live_variant import LiveVariant
from quantchat.wire.messages import Failed
from quantchat.wire.variant import SERVERS

if TYPE_CHECKING:
    from quantchat.app.widgets.turn_view import TurnView


AT_ONCE = 12
"""Turns that are drawn, and so many more each time the reader goes up beyond the first of them:
what one more token costs grows with what Textual has to lay out."""
WHEEL_ROWS = 5
"""Rows of them that come in sight when it was the mouse wheel."""


class Transcript(VerticalScroll, can_focus=False):
    """The turns of the conversation, as this variant knows them: the newest ones."""

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

        self._follows = True
        self._turns: list[Turn] = []
        self._views: dict[int, TurnView] = {}
        """Of the last turns, by number, the oldest first."""

    def compose(self) -> ComposeResult:
        """What was loaded, what is being loaded, why it failed; turns come in between."""
        yield self._note
        yield self._earlier
        yield self._stages
        yield self._failure

    def on_mount(self) -> None:
        """Hold the end whenever the text grows."""
        self.watch(self, "virtual_size", self._hold_end, init=False)

    def on_resize(self) -> None:
        """Hold the end when the place for the text shrinks, too."""
        self._hold_end()

    def render_lines(self, crop: Region) -> list[Strip]:
        """The background alone."""
        return ground(self, crop)

    async def sync(self, conversation: Conversation) -> None:
        """Show the turns of `conversation`, the newest at least; those that are there stay."""
        self._turns = conversation.turns
        # A new chat counts its turns anew: it is the turn that is compared, not its number.
        shown = [index for index, turn in enumerate(self._turns) if self._shows(turn)]
        new = self._turns[shown[-1] + 1 if shown else 0 :][-AT_ONCE:]
        kept = self._turns[-AT_ONCE:] if new else [self._turns[index] for index in shown]
        wanted = {turn.number: turn for turn in kept}
        for number, view in list(self._views.items()):
            if wanted.get(number) is not view.turn:
                await self._views.pop(number).remove()
        if new:
            views = self._made(new)
            await self.mount_all(views.values(), before=self._stages)
            self._views.update(views)
            self.follow(True)
        self._count_earlier()

    def _shows(self, turn: Turn) -> bool:
        view = self._views.get(turn.number)
        return view is not None and view.turn is turn

    def _made(self, turns: list[Turn]) -> dict[int, TurnView]:
        # Not before there is a turn: the parser of Markdown is no part of the first frame.
        from quantchat.app.widgets.turn_view import TurnView

        return {turn.number: TurnView(turn, self._variant.label) for turn in turns}

    def _count_earlier(self) -> None:
        earlier = len(self._turns) - len(self._views)
        self._earlier.display = earlier > 0
        if earlier > 0:
            turns = figures.plural(earlier, "earlier turn")
            self._earlier.update(quiet(f"↑ {turns}, further up"))

    @property
    def _more_above(self) -> bool:
        """Whether the reader is at the top, and not of the conversation."""
        return self.scroll_y <= 0 and len(self._views) < len(self._turns)

    async def _show_earlier(self, rows: int) -> None:
        """Draw some turns before the first, and go up so that `rows` of them come in sight."""
        end = len(self._turns) - len(self._views)
        views = self._made(self._turns[max(0, end - AT_ONCE) : end])
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
        """The wheel, too, goes beyond the first turn that is drawn."""
        self._go_beyond(WHEEL_ROWS)

    def _go_beyond(self, rows: int) -> bool:
        """Draw what is further up, if the reader is at the top and there is more."""
        more = self._more_above
        if more:
            self.follow(False)
            self.run_worker(self._show_earlier(rows), exclusive=True)
        return more

    def tick(self) -> None:
        """Draw what came since the last tick."""
        for view in self._views.values():
            view.tick()
        self._stages.tick()

    def show_state(self) -> None:
        """Draw the variant's state anew: what was loaded, the stages, the failure."""
        self._stages.observe()
        self.show_trouble(self._variant.failure)
        self._describe()

    def show_trouble(self, trouble: Failed | None) -> None:
        """Explain what is wrong with the variant, if anything is."""
        self._failure.show(trouble)

    def _describe(self) -> None:
        """Say above the turns what must be known of the variant as it was loaded."""
        ready = self._variant.ready
        self._note.display = ready is not None
        if ready is None:
            return
        resolved = ready.resolved
        parts = figures.load_parts(resolved.device, ready.import_s, ready.weights_s, ready.warmup_s)
        split = " + ".join(f"{name} {figures.number(s)}" for name, s in parts)
        lines = [quiet(f"loaded in {figures.seconds(self._variant.load_s)} ({split})")]
        if resolved.device in SERVERS:
            lines.append(quiet("asks for: ") + outside(resolved.model, "$quiet"))
        else:
            lines.append(quiet("decodes: ") + outside(resolved.decode, "$quiet"))
        if resolved.tokenizer:
            lines.append(quiet("tokenizer of: ") + outside(resolved.tokenizer, "$quiet"))
        if not resolved.chat_template:
            hint = (
                'api = "chat" in the profile has the server apply its own.'
                if resolved.device in SERVERS
                else "`tokenizer` in the profile lends one."
            )
            plain = "No chat template: it continues the prompt as plain text."
            lines.append(Content.styled(f"{plain} {hint}", "$warning"))
        if resolved.slow_kernel:
            slow = Content.styled("SLOW KERNEL: ", "bold $error")
            lines.append(slow + outside(resolved.slow_kernel))
        if ready.note:
            lines.append(outside(ready.note))
        self._note.update(Content("\n").join(lines))

    # ------------------------------------------------------------ following the end

    @property
    def following(self) -> bool:
        """Whether new text keeps the end in sight."""
        return self._follows and not (self.is_anchored and self._anchor_released)

    @property
    def away(self) -> bool:
        """Whether there is more below than is seen, and it will not come by itself."""
        return not self.following and self.scroll_y < self.max_scroll_y

    def follow(self, follow: bool) -> None:
        """Go to the end and stay with it, or stay here."""
        self._follows = follow
        if not follow:
            self.anchor(False)
        elif self.is_anchored:
            self.anchor()
        self._hold_end()

    def _hold_end(self) -> None:
        """Anchor to the end while there is more than fits.

        An anchored container that is not full would push its text down to its bottom.
        """
        overfull = self.max_scroll_y > 0
        if self._follows and overfull and not self.is_anchored:
            self.anchor()
        elif self.is_anchored and not overfull:
            self.anchor(False)
            # At once: put off, it would let go of an anchor that was set in the meantime.
            self.scroll_to(y=0, animate=False, force=True, immediate=True)

    def to_divergence(self) -> bool:
        """Go to the newest place where the answers part; whether there is one."""
        for view in reversed(self._views.values()):
            if view.divergence.known:
                self.follow(False)
                row = view.divergence_y - self.region.y + self.scroll_y
                above = self.size.height // 3
                self.scroll_to(y=max(0, row - above), animate=False, immediate=True)
                return True
        return False

    def scroll_pages(self, pages: int) -> None:
        """Scroll by `pages`; reaching the end, follow it again."""
        step = pages * max(1, self.size.height - 2)
        if step < 0 and self._go_beyond(-step):
            return
        if self.scroll_y + step >= self.max_scroll_y:
            self.follow(True)
        else:
            # At once: the next key may come before the next refresh, and counts from here.
            self.scroll_relative(y=step, animate=False, immediate=True)
