"""Draws the Markdown of language models as lines of styled text for any width.

Textual's `Markdown` is not used: it makes a widget of each paragraph, item and cell, so that the
cost of one more token grows with the answer, and in a table with the square of its size.
"""

from __future__ import annotations

import re
import threading
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from linkify_it import LinkifyIt  # type: ignore[import-untyped]
from markdown_it import MarkdownIt
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline
from markdown_it.rules_inline.state_inline import Delimiter
from markdown_it.token import Token
from rich.cells import cell_len
from textual.content import Content, Span
from textual.style import Style

from quantchat.app.cell_widths import chop_cells
from quantchat.app.markdown_table import table_lines
from quantchat.text import neutralise

_QUIET = "$quiet"
_HEADINGS = {"h1": "bold underline $primary", "h2": "bold underline $primary"}
"""Tag of a heading → its style; other headings have the style `_HEADING`."""
_HEADING = "bold $primary"
_INLINE = {"strong_open": "bold", "em_open": "italic", "s_open": "strike"}
"""Type of a token that begins styled text → the style."""
_CODE_INLINE = "on $panel"
_CODE = "on $surface"
_MIN_ROOM = 8
"""Fewest cells for the text of nested lists and quotes, however deep they are."""

MAX_COLOURED = 12_000
"""Longest code, in characters, that is coloured: the time of some Pygments lexers grows with the
square of the length."""
_LONGEST_LINK = 1000
"""Longest word, in characters, that is searched for web and e-mail addresses: the time grows with
the square of the length, and no real address is longer."""
_WORD = re.compile(r"\S+")
_FIRST_WORD = re.compile(rf"\S{{1,{_LONGEST_LINK + 1}}}")


def _keep_line_breaks(state: StateCore) -> None:
    """Turn each newline of the source into a line break, as models intend it."""
    for token in state.tokens:
        for child in token.children or ():
            if child.type == "softbreak":
                child.type = "hardbreak"


_IN_WORD = re.compile(r"(?<=[0-9A-Za-z)\]])\*+")
_IN_NUMBER = re.compile(r"(?<=[0-9])\*{1,2}(?=[0-9])")
_FORMULA = re.compile(
    r"\\\([\s\S]{0,1500}?\\\)|\\\[[\s\S]{0,1500}?\\\]|\$\$[\s\S]{1,1500}?\$\$"
    r"|\$(?![\s$])[^$\n]{0,1500}?(?<![\s\\])\$(?!\d)|\\[()\[\]]"
)
"""A TeX formula with its delimiters, or an opening delimiter whose partner has not arrived yet. As
in Pandoc, a closing `$` must not follow a space or precede a digit, so `$5 and $6` is not a
formula. Without the limit on the length, the time would be quadratic in the number of
delimiters."""


def _keep_product(state: StateInline, silent: bool) -> bool:
    """Keep the asterisks of products and powers: 17*23, width*height*depth, 2**10.

    In CommonMark, emphasis can also begin within a word. With this rule an asterisk after a letter
    or digit can only end emphasis, and an asterisk between two digits is never a marker.
    """
    if silent or _keep_match(state, silent, _IN_NUMBER):
        return not silent
    if _IN_WORD.match(state.src, state.pos, state.posMax) is None:
        return False
    run = state.scanDelims(state.pos, True)
    for _ in range(run.length):
        state.push("text", "", 0).content = "*"
        at = len(state.tokens) - 1
        state.delimiters.append(Delimiter(ord("*"), run.length, at, -1, False, run.can_close))
    state.pos += run.length
    return True


def _keep_formula(state: StateInline, silent: bool) -> bool:
    """Keep a formula as it is: no escapes and no emphasis in it."""
    return _keep_match(state, silent, _FORMULA)


def _keep_match(state: StateInline, silent: bool, pattern: re.Pattern[str]) -> bool:
    found = pattern.match(state.src, state.pos, state.posMax)
    if found is None:
        return False
    if not silent:
        for number, line in enumerate(found[0].split("\n")):
            if number:
                state.push("hardbreak", "br", 0)
            state.pending += line
    state.pos = found.end()
    return True


def _neutralise(state: StateCore) -> None:
    """Neutralise characters from entities: the parser makes `&#x202E;` a control character."""
    for token in state.tokens:
        for part in (token, *(token.children or ())):
            part.content = neutralise(part.content)
            for grandchild in part.children or ():  # of an image's description
                grandchild.content = neutralise(grandchild.content)


class _WordByWord:
    """Finds web and e-mail addresses word by word; on a whole text, linkify-it is quadratic."""

    def __init__(self) -> None:
        self._words = LinkifyIt()

    def pretest(self, text: str) -> bool:
        """Return whether there may be an address in `text`."""
        return any(mark in text for mark in ":.@")

    def test(self, text: str) -> bool:
        """Return whether there is an address in `text`."""
        return self.match(text) is not None

    def match(self, text: str) -> list[Any] | None:
        """Return the addresses in `text`, in order; None if there are none."""
        found: list[Any] = []
        for word in _WORD.finditer(text):
            if len(word[0]) > _LONGEST_LINK or not self.pretest(word[0]):
                continue
            for match in self._words.match(word[0]) or ():
                match.index += word.start()
                match.last_index += word.start()
                found.append(match)
        return found or None

    def match_at_start(self, text: str) -> Any:
        """Return the address at the start of `text`, or None."""
        word = _FIRST_WORD.match(text)
        if word is None or len(word[0]) > _LONGEST_LINK:
            return None
        return self._words.match_at_start(word[0])


_parsers = threading.local()
"""One parser for each thread, because a parser keeps its state in itself."""


def parser() -> MarkdownIt:
    """Return the thread's parser. It keeps line breaks and shows tags (`<think>`, HTML) as text."""
    made: MarkdownIt | None = getattr(_parsers, "made", None)
    if made is None:
        made = _parsers.made = _new_parser()
    return made


def _new_parser() -> MarkdownIt:
    made = MarkdownIt("gfm-like", {"html": False})
    made.linkify = cast("Any", _WordByWord())
    made.inline.ruler.before("escape", "formula", _keep_formula)
    made.inline.ruler.before("emphasis", "product", _keep_product)
    made.core.ruler.push("neutralise", _neutralise)
    made.core.ruler.push("keep_line_breaks", _keep_line_breaks)
    return made


@dataclass(frozen=True)
class Block:
    """A top-level block: its tokens, and its first line in the source."""

    tokens: tuple[Token, ...]
    first_line: int

    @property
    def kind(self) -> str:
        """Type of the first token, such as `paragraph_open`, `fence` or `table_open`."""
        return self.tokens[0].type

    @property
    def code(self) -> str | None:
        """The code of a code block; None for other blocks."""
        return self.tokens[0].content if self.kind in ("fence", "code_block") else None

    @property
    def language(self) -> str:
        """The language that a code block names; empty if it names none."""
        return next(iter(self.tokens[0].info.split()), "")

    @property
    def parts(self) -> int:
        """Number of tokens, which is proportional to the cost of drawing."""
        return sum(1 + len(token.children or ()) for token in self.tokens)

    @property
    def size(self) -> int:
        """Number of characters."""
        return sum(len(token.content) for token in self.tokens)

    def rows_before(self, line: int) -> Block:
        """Return a table's block with only the rows that start before `line` of the source."""
        remaining: list[Token] = []
        include = True
        for token in self.tokens:
            if token.type == "tr_open":
                include = token.map is None or token.map[0] < line
            if include:
                remaining.append(token)
            include = include or token.type == "tr_close"
        return Block(tuple(remaining), self.first_line)

    def lines(self, width: int, *, headless: bool = False) -> list[Content]:
        """Draw the block in `width` cells; `headless` omits the head of a table."""
        return _Drawing(width, headless).draw(self.tokens)


def blocks(source: str) -> list[Block]:
    """Return the top-level blocks of Markdown `source`, which has no control characters."""
    found: list[Block] = []
    begun: list[Token] = []
    for token in parser().parse(source):
        begun.append(token)
        if token.level == 0 and token.nesting <= 0:
            first = begun[0].map
            found.append(Block(tuple(begun), first[0] if first else 0))
            begun = []
    return found


def code_text(code: str) -> Content:
    """Return `code` without colours, with tabs expanded."""
    return Content(code.rstrip("\n").expandtabs(4))


def coloured_code(code: str, language: str) -> Content:
    """Return `code` coloured for `language`; without colours if Pygments does not know it."""
    from textual.highlight import highlight

    return highlight(code_text(code).plain, language=language)


def code_lines(code: Content, width: int) -> list[Content]:
    """Return the lines of `code` on the background of code blocks.

    Long lines are wrapped at `width` cells, because nothing on the screen scrolls sideways.
    """
    room = max(2, width - 2)
    parts: list[tuple[int, str, int]] = []
    start = 0
    for line in code.plain.split("\n"):
        cells = cell_len(line)
        for part in [line] if cells <= room else chop_cells(line, room):
            parts.append((start, part, cells if cells <= room else cell_len(part)))
            start += len(part)
        start += 1
    # Distribute the spans over the parts: cutting `code` would scan all spans for each part.
    spans: list[list[Span]] = [
        [Span(0, len(part) + width - cells, _CODE)] for _, part, cells in parts
    ]
    starts = [start for start, _, _ in parts]
    for first, last, style in code.spans:
        at = max(0, bisect_right(starts, first) - 1)
        while at < len(parts) and starts[at] < last:
            begin, part, _ = parts[at]
            inside = Span(max(0, first - begin) + 1, min(last - begin, len(part)) + 1, style)
            if inside.start < inside.end:
                spans[at].append(inside)
            at += 1
    return [
        Content(f" {part}{' ' * (width - 1 - cells)}", styles)
        for (_, part, cells), styles in zip(parts, spans, strict=True)
    ]


def inline(token: Token) -> Content:
    """Return the styled text of an inline token."""
    text: list[str] = []
    spans: list[Span] = []
    open_: list[tuple[Style | str, int]] = []
    position = 0

    def add(part: str) -> None:
        nonlocal position
        text.append(part)
        position += len(part)

    def close() -> None:
        style, start = open_.pop()
        spans.append(Span(start, position, style))

    for child in token.children or ():
        kind = child.type
        if kind == "text":
            add(re.sub(r"\s+", " ", child.content))
        elif kind == "hardbreak":
            add("\n")
        elif kind == "code_inline":
            open_.append((_CODE_INLINE, position))
            add(child.content)
            close()
        elif kind in _INLINE:
            open_.append((_INLINE[kind], position))
        elif kind == "link_open":
            open_.append((_link(child.attrs.get("href", "")), position))
        elif kind == "image":
            open_.append((_link(child.attrs.get("src", "")), position))
            add("🖼  " + "".join(part.content for part in child.children or ()))
            close()
        elif kind.endswith("_close"):
            close()
        else:
            add(child.content)
    return Content("".join(text), spans)


def _link(href: object) -> Style:
    """Return a style that runs the widget's `action_link` on a click."""
    return Style.from_meta({"@click": f"link({str(href)!r})"}) + Style(underline=True)


class _Drawing:
    """Draws tokens as lines, with the prefixes of the lists and quotes around them."""

    def __init__(self, width: int, headless: bool) -> None:
        self._width = width
        self._headless = headless
        self._lines: list[Content] = []
        self._prefixes: list[Content] = []
        self._bullet: Content | None = None
        """The bullet or number of an item: on its first line, it replaces the innermost prefix."""
        self._numbers: list[int | None] = []
        """The next number of each enclosing list; None for a bullet list."""

    def draw(self, tokens: Sequence[Token]) -> list[Content]:
        index = 0
        while index < len(tokens):
            token = tokens[index]
            kind = token.type
            if kind == "table_open":
                end = next(i for i in range(index, len(tokens)) if tokens[i].type == "table_close")
                self._add(table_lines(*_cells(tokens[index:end]), self._width_left, self._headless))
                index = end
            elif kind in ("fence", "code_block"):
                self._add(code_lines(code_text(token.content), self._width_left))
            elif kind == "hr":
                self._add([Content.styled("─" * self._width_left, _QUIET)])
            elif kind == "inline":
                style = self._heading(tokens, index)
                content = inline(token).stylize_before(style) if style else inline(token)
                self._add(content.wrap(self._width_left))
            elif kind in ("bullet_list_open", "ordered_list_open"):
                self._open_list(token)
            elif kind in ("bullet_list_close", "ordered_list_close"):
                self._numbers.pop()
            elif kind == "list_item_open":
                self._open_item()
            elif kind == "blockquote_open":
                self._prefixes.append(Content.styled("▌ ", _QUIET))
            elif kind in ("list_item_close", "blockquote_close"):
                self._prefixes.pop()
                self._bullet = None
            elif kind == "paragraph_open" and self._needs_blank_line(tokens, index):
                self._add([Content()])
            index += 1
        return self._lines

    @property
    def _width_left(self) -> int:
        used = sum(prefix.cell_length for prefix in self._prefixes)
        return max(_MIN_ROOM, self._width - used)

    def _add(self, lines: Iterable[Content]) -> None:
        for line in lines:
            bullet, self._bullet = self._bullet, None
            prefixes = self._prefixes if bullet is None else [*self._prefixes[:-1], bullet]
            self._lines.append(Content("").join([*prefixes, line]) if prefixes else line)

    @staticmethod
    def _heading(tokens: Sequence[Token], index: int) -> str:
        before = tokens[index - 1] if index else None
        if before is None or before.type != "heading_open":
            return ""
        return _HEADINGS.get(before.tag, _HEADING)

    def _needs_blank_line(self, tokens: Sequence[Token], index: int) -> bool:
        """Return whether the paragraph follows another block in its list item or quote."""
        inside = self._lines and self._prefixes and self._bullet is None
        before = tokens[index - 1].type if index else ""
        after_another = before in ("fence", "code_block") or before.endswith("_close")
        return bool(inside and after_another and not tokens[index].hidden)

    def _open_list(self, token: Token) -> None:
        start = token.attrs.get("start", 1)
        self._numbers.append(int(start) if token.type == "ordered_list_open" else None)

    def _open_item(self) -> None:
        number = self._numbers[-1]
        depth = len(self._numbers) - 1
        bullet = f"{'•◦▪'[depth % 3]} " if number is None else f"{number}. "
        if number is not None:
            self._numbers[-1] = number + 1
        if self._bullet is not None:  # an item that starts with a list
            self._add([Content()])
        self._bullet = Content.styled(bullet, _QUIET)
        self._prefixes.append(Content(" " * len(bullet)))


def _cells(tokens: Sequence[Token]) -> tuple[list[list[Content]], list[str]]:
    """Return the rows of a table, the head first, and the alignment of each column."""
    rows: list[list[Content]] = []
    aligned: list[str] = []
    for index, token in enumerate(tokens):
        if token.type == "tr_open":
            rows.append([])
        elif token.type in ("th_open", "td_open"):
            rows[-1].append(inline(tokens[index + 1]))
            if len(rows) == 1:
                aligned.append(str(token.attrs.get("style", "")).rpartition(":")[2])
    return rows, aligned
