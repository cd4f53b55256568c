"""The two columns: side by side, one alone, or as tabs on a narrow terminal."""

from __future__ import annotations

import asyncio
import time
from typing import Literal

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical

from quantchat.app.widgets.live_panel import Scales
from quantchat.app.widgets.strip_chart import ceiling, size_ceiling
from quantchat.app.widgets.tab_line import TabLine
from quantchat.app.widgets.variant_column import VariantColumn
from quantchat.session.comparison import Comparison
from quantchat.session.live_variant import LiveVariant

SLOW_DRAW_S = 0.015
"""If drawing a column took longer, in s, keys are handled before the next column is drawn."""
PAUSE_S = 0.04
"""The pause for these keys in s: long enough to handle a key and to draw a frame."""


class Columns(Vertical):
    """Shows the comparison's pair; a column exists as long as its variant is shown."""

    DEFAULT_CSS = """
    Columns { height: 1fr; }
    Columns.-tabs > TabLine { display: block; }
    """

    def __init__(self, comparison: Comparison) -> None:
        super().__init__()
        self._comparison = comparison
        self._side_by_side = Horizontal()
        self._tab_line = TabLine()
        self._maximised: int | None = None
        """Index of the column that is shown alone; None shows both."""
        self._tabs = False
        self._tab = 0
        # Timers do not wait for messages: without the lock, a turn could be removed while a tick
        # draws it.
        self._turns_lock = asyncio.Lock()
        self._strip_height = 1

    def compose(self) -> ComposeResult:
        """Lay out the tabs (hidden on wide terminals) and the columns."""
        yield self._tab_line
        yield self._side_by_side

    async def on_mount(self) -> None:
        """Show the pair."""
        await self.show_pair()

    @property
    def pair(self) -> list[VariantColumn]:
        """The left and the right column."""
        return list(self._side_by_side.query_children(VariantColumn))

    @property
    def visible_columns(self) -> list[VariantColumn]:
        """The visible columns."""
        return [column for column in self.pair if column.display]

    def column_of(self, variant: LiveVariant) -> VariantColumn | None:
        """Return the column of `variant`, or None."""
        return next((column for column in self.pair if column.variant is variant), None)

    async def show_pair(self) -> None:
        """Show the comparison's pair in its order; remaining columns keep their content."""
        async with self._turns_lock:
            await self._show_pair()

    async def _show_pair(self) -> None:
        sides = self._comparison.sides
        for column in self.pair:
            if column.variant not in sides:
                await column.remove()
        for variant in sides:
            if self.column_of(variant) is None:
                await self._side_by_side.mount(VariantColumn(variant))
        for column in self.pair:
            column.set_side(left=column.variant is sides[0])
            column.panel.strip_height = self._strip_height
            await column.transcript.sync(self._comparison.conversation)
        self._side_by_side.sort_children(key=lambda column: column.has_class("-right"))
        self._display()

    # ------------------------------------------------------------ visibility

    def fit(self, *, tabs: bool, strip_height: int) -> None:
        """Switch to tabs or columns, and set the height of the strip charts in lines.

        With height 0, each live panel is a single line of figures.
        """
        self._tabs, self._strip_height = tabs, strip_height
        for column in self.pair:
            column.panel.strip_height = strip_height
            column.panel.refresh(layout=True)
        self._display()

    def maximise(self) -> None:
        """Show the left column alone, then the right one, then both; with tabs, the other tab."""
        if self._tabs:
            self._tab = 1 - self._tab
        else:
            self._maximised = {None: 0, 0: 1, 1: None}[self._maximised]
        self._display()

    def _display(self) -> None:
        alone = self._tab if self._tabs else self._maximised
        for index, column in enumerate(self.pair):
            column.display = alone in (None, index)
        self.set_class(self._tabs, "-tabs")
        self._tab_line.show(self._comparison.sides, self._tab)

    def on_tab_line_clicked(self) -> None:
        """Show the other tab."""
        self.maximise()

    # ------------------------------------------------------------ the look of the turns

    async def toggle_thoughts(self) -> bool:
        """Open the thoughts in both columns, or fold them; return whether they are open now."""
        return await self._toggle("thoughts")

    async def toggle_prompts(self) -> bool:
        """Show long prompts whole in both columns, or fold them; return whether they are whole."""
        return await self._toggle("prompts")

    async def next_raw(self) -> tuple[bool, bool]:
        """Go to the next choice of columns shown raw: left, right, both, none.

        Return whether the left and the right column are raw now.
        """
        states = [(False, False), (True, False), (False, True), (True, True)]
        before = tuple(column.transcript.look.raw for column in self.pair)
        now = states[(states.index(before) + 1) % 4] if before in states else states[0]
        for column, raw in zip(self.pair, now, strict=True):
            column.transcript.look.raw = raw
        await self._show_looks()
        return now

    async def _toggle(self, name: Literal["thoughts", "prompts"]) -> bool:
        value = not all(getattr(column.transcript.look, name) for column in self.pair)
        for column in self.pair:
            setattr(column.transcript.look, name, value)
        await self._show_looks()
        return value

    async def _show_looks(self) -> None:
        async with self._turns_lock:
            for column in self.pair:
                column.transcript.show_look()

    # ------------------------------------------------------------ drawing

    def show_state(self, variant: LiveVariant) -> None:
        """Redraw the state of `variant` if it is shown."""
        column = self.column_of(variant)
        if column is not None:
            column.show_state()
            self._tab_line.refresh()

    async def sync(self) -> None:
        """Show exactly the turns of the conversation."""
        async with self._turns_lock:
            for column in self.pair:
                await column.transcript.sync(self._comparison.conversation)

    async def tick(self) -> None:
        """Draw what arrived since the last tick, with the same scales in both columns."""
        for column in self.pair:
            async with self._turns_lock:
                began = time.perf_counter()
                if column.is_attached:
                    column.tick(self._comparison.conversation)
            if time.perf_counter() - began > SLOW_DRAW_S:
                await asyncio.sleep(PAUSE_S)
        async with self._turns_lock:
            self._draw_panels()

    def _draw_panels(self) -> None:
        pair = self.pair
        peaks = [column.panel.peaks for column in pair]
        scales = Scales(
            tok_s=ceiling(max((tok_s for tok_s, _ in peaks), default=0.0)),
            memory=size_ceiling(max((size for _, size in peaks), default=0)),
        )
        for column in pair:
            column.panel.draw(scales)

    # ------------------------------------------------------------ scrolling

    def scroll_pages(self, pages: int) -> None:
        """Scroll all visible columns by `pages`."""
        for column in self.visible_columns:
            column.transcript.scroll_pages(pages)

    def to_divergence(self) -> bool:
        """Scroll each column to its newest divergence; return whether there is one."""
        found = [column.transcript.to_divergence() for column in self.pair]
        return any(found)

    async def to_turn(self, index: int, text: str) -> None:
        """Scroll each column to turn `index` of the conversation, to the first line with `text`."""
        async with self._turns_lock:
            for column in self.pair:
                await column.transcript.to_turn(index, text)

    def toggle_follow(self) -> bool:
        """Follow the end in each column, or stop if all follow already; return the new state."""
        follow = not all(column.transcript.following for column in self.visible_columns)
        for column in self.pair:
            column.transcript.follow(follow)
        return follow
