"""The two columns: side by side, one alone, or as tabs where the terminal is narrow."""

from __future__ import annotations

import asyncio
import time

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical

from quantchat.app.widgets.live_panel import Scales
from quantchat.app.widgets.strip_chart import ceiling, size_ceiling
from quantchat.app.widgets.tab_line import TabLine
from quantchat.app.widgets.variant_column import VariantColumn
from quantchat.session.comparison import Comparison
from quantchat.session.live_variant import LiveVariant

LONG_S = 0.015
"""A column that took longer to draw, as a long table in one go does, lets keys come next."""
BREATH_S = 0.04
"""Long enough for a key to be heard, and for the frame that shows it."""


class Columns(Vertical):
    """Follows the comparison's pair; a column lives as long as its variant is shown."""

    DEFAULT_CSS = """
    Columns { height: 1fr; }
    Columns.-tabs > TabLine { display: block; }
    """

    def __init__(self, comparison: Comparison) -> None:
        super().__init__()
        self._comparison = comparison
        self._side_by_side = Horizontal()
        self._tab_line = TabLine()
        self._alone: int | None = None
        """The column that is maximised, if one is."""
        self._tabs = False
        self._tab = 0
        # Timers do not wait for messages: no turn may go while something is drawn in it.
        self._changing = asyncio.Lock()
        self._strip_height = 1

    def compose(self) -> ComposeResult:
        """Tabs (seldom seen) and columns."""
        yield self._tab_line
        yield self._side_by_side

    async def on_mount(self) -> None:
        """Begin with the pair."""
        await self.show_pair()

    @property
    def pair(self) -> list[VariantColumn]:
        """The columns, left and right."""
        return list(self._side_by_side.query_children(VariantColumn))

    @property
    def shown(self) -> list[VariantColumn]:
        """The columns that can be seen."""
        return [column for column in self.pair if column.display]

    def column_of(self, variant: LiveVariant) -> VariantColumn | None:
        """The column of `variant`, if it has one."""
        return next((column for column in self.pair if column.variant is variant), None)

    async def show_pair(self) -> None:
        """Show the comparison's pair, in its order; columns that stay keep what they show."""
        async with self._changing:
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
            column.put(left=column.variant is sides[0])
            column.panel.strip_height = self._strip_height
            await column.transcript.sync(self._comparison.conversation)
        self._side_by_side.sort_children(key=lambda column: column.has_class("-right"))
        self._display()

    # ------------------------------------------------------------ which can be seen

    def fit(self, *, tabs: bool, strip_height: int) -> None:
        """Suit the terminal: tabs if it is narrow, taller strips if it is high."""
        self._tabs, self._strip_height = tabs, strip_height
        for column in self.pair:
            column.panel.strip_height = strip_height
            column.panel.refresh(layout=True)
        self._display()

    def maximise(self) -> None:
        """Left alone, right alone, both; as tabs, the other one."""
        if self._tabs:
            self._tab = 1 - self._tab
        else:
            self._alone = {None: 0, 0: 1, 1: None}[self._alone]
        self._display()

    def _display(self) -> None:
        alone = self._tab if self._tabs else self._alone
        for index, column in enumerate(self.pair):
            column.display = alone in (None, index)
        self.set_class(self._tabs, "-tabs")
        self._tab_line.show(self._comparison.sides, self._tab)

    def on_tab_line_clicked(self) -> None:
        """Turn to the other tab."""
        self.maximise()

    # ------------------------------------------------------------ drawing

    def show_state(self, variant: LiveVariant) -> None:
        """Draw the state of `variant` anew, if it is one of the pair."""
        column = self.column_of(variant)
        if column is not None:
            column.show_state()
            self._tab_line.refresh()

    async def sync(self) -> None:
        """Show exactly the turns of the conversation."""
        async with self._changing:
            for column in self.pair:
                await column.transcript.sync(self._comparison.conversation)

    async def tick(self) -> None:
        """Draw what came since the last tick, the strips of both columns on the same scales."""
        for column in self.pair:
            async with self._changing:
                began = time.perf_counter()
                if column.is_attached:
                    column.tick(self._comparison.conversation)
            if time.perf_counter() - began > LONG_S:
                await asyncio.sleep(BREATH_S)
        async with self._changing:
            self._draw_panels()

    def _draw_panels(self) -> None:
        pair = self.pair
        peaks = [column.panel.peaks for column in pair]
        scales = Scales(
            tok_s=ceiling(max((tok_s for tok_s, _ in peaks), default=0.0)),
            memory=size_ceiling(max((held for _, held in peaks), default=0)),
        )
        for column in pair:
            column.panel.draw(scales)

    # ------------------------------------------------------------ scrolling

    def scroll_pages(self, pages: int) -> None:
        """Scroll what can be seen, both alike."""
        for column in self.shown:
            column.transcript.scroll_pages(pages)

    def to_divergence(self) -> bool:
        """Go in each column to where the newest answers part; whether there is such a place."""
        found = [column.transcript.to_divergence() for column in self.pair]
        return any(found)

    def toggle_follow(self) -> bool:
        """Follow the end in each column, or stay if each follows already; returns which."""
        follow = not all(column.transcript.following for column in self.shown)
        for column in self.pair:
            column.transcript.follow(follow)
        return follow
