"""Markdown as language models write it, streamed."""

from __future__ import annotations

from markdown_it import MarkdownIt
from markdown_it.rules_core import StateCore
from textual.content import Content
from textual.widgets import Markdown
from textual.widgets.markdown import MarkdownBlock, MarkdownFence, MarkdownStream

from quantchat.app.textual_workarounds import stop_stream
from quantchat.text import neutralise


def _keep_line_breaks(state: StateCore) -> None:
    """Make each newline of the source a line break: a model that ends a line means it."""
    for token in state.tokens:
        for child in token.children or ():
            if child.type == "softbreak":
                child.type = "hardbreak"


def _neutralise(state: StateCore) -> None:
    """Mark what entities stood for: `&#x202E;` is a control only once it is parsed."""
    for token in state.tokens:
        for part in (token, *(token.children or ())):
            part.content = neutralise(part.content)
            for grandchild in part.children or ():  # of an image's description
                grandchild.content = neutralise(grandchild.content)


def model_markdown() -> MarkdownIt:
    """A parser that keeps line breaks, and shows tags (`<think>`, HTML), which others drop."""
    parser = MarkdownIt("gfm-like", {"html": False})
    parser.core.ruler.push("neutralise", _neutralise)
    parser.core.ruler.push("keep_line_breaks", _keep_line_breaks)
    return parser


class _Fence(MarkdownFence):
    """A code block whose long lines wrap: the keyboard cannot scroll a block sideways."""

    DEFAULT_CSS = """
    _Fence {
        overflow: hidden hidden; background: $surface; color: $foreground;
        & > Label { padding: 0 1; width: 1fr; }
    }
    """


class _StreamedFence(_Fence):
    """As `_Fence`, not coloured: colouring anew at each flush would cost more the longer it is."""

    @classmethod
    def highlight(cls, code: str, language: str, ansi: bool = False, dark: bool = False) -> Content:
        """The code as it is."""
        del language, ansi, dark
        return Content(code)


class AnswerMarkdown(Markdown):
    """One answer: streamed piece by piece, then drawn once more from its whole text."""

    DEFAULT_CSS = """
    AnswerMarkdown { padding: 0; margin: 0; }
    """

    def __init__(self, text: str = "") -> None:
        """`text` is what was said already, raw."""
        super().__init__(neutralise(text), parser_factory=model_markdown, open_links=False)
        self._stream: MarkdownStream | None = None

    def get_block_class(self, block_name: str) -> type[MarkdownBlock]:
        """Blocks of code are ours."""
        if block_name in ("fence", "code_block"):
            return _StreamedFence if self._stream is not None else _Fence
        return super().get_block_class(block_name)

    async def write(self, text: str) -> None:
        """Append raw `text`, soon. Returns without waiting for it to be drawn."""
        if self._stream is None:
            self._stream = self.get_stream(self)
        await self._stream.write(neutralise(text))

    async def settle(self, text: str) -> None:
        """End the stream and draw the whole raw `text`. Nothing may be written after."""
        stream, self._stream = self._stream, None
        if stream is not None:
            await stop_stream(stream)
        await self.update(neutralise(text))
        if self.children:
            # By a rule for `:last-child` Textual would style every block anew with each one added.
            self.children[-1].styles.margin = (self.children[-1].styles.margin.top, 0, 0, 0)

    async def on_unmount(self) -> None:
        """Let no stream live on without its widget."""
        stream, self._stream = self._stream, None
        if stream is not None:
            await stop_stream(stream)
