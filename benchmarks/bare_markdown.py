"""Streams text into two of Textual's own Markdown widgets: `screen.py` measures what that costs.

`python benchmarks/bare_markdown.py KIND RATE` runs until it is killed. KIND is a kind of text in
tests/fakes/synthetic_text.py, RATE the number of tokens per second in each widget. The program
streams as Textual's documentation recommends: with `Markdown.get_stream`, into a container that is
anchored to its end.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from textual.app import App, ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.widgets import Footer, Markdown

from fakes.synthetic_text import tokens

MOST = 100_000
"""Number of tokens after which a stream ends."""


class Bare(App[None]):
    """Two columns, each with a Markdown widget."""

    CSS = "VerticalScroll { width: 1fr; }"

    def compose(self) -> ComposeResult:
        """Yield two columns side by side, and a footer."""
        with Horizontal():
            for _ in range(2):
                with VerticalScroll():
                    yield Markdown()
        yield Footer()

    def on_mount(self) -> None:
        """Start streaming into both columns."""
        self.title = "streams"
        kind, rate = sys.argv[1], float(sys.argv[2])
        for column in self.query(VerticalScroll):
            column.anchor()
        for widget in self.query(Markdown):
            self.run_worker(self.stream(widget, tokens(kind, MOST), rate))

    async def stream(self, widget: Markdown, pieces: list[str], rate: float) -> None:
        """Append the pieces that are due every 30 ms: quantchat's workers send such batches too."""
        stream = Markdown.get_stream(widget)
        began, done = time.perf_counter(), 0
        await stream.write("streams\n\n")
        while done < MOST:
            await asyncio.sleep(0.03)
            due = min(MOST, int((time.perf_counter() - began) * rate))
            await stream.write("".join(pieces[done:due]))
            done = due


if __name__ == "__main__":
    Bare().run()
