"""How many cells text takes, so that it fits on every terminal.

Terminals disagree: 👩‍💻 is two cells where joined emoji are known and four where they are not, a
vowel sign of Devanagari is one cell in tmux and xterm and none by the tables of Rich. A text that
takes more cells than was reckoned runs over what stands beside it. So the most that any terminal
takes is reckoned here, character by character, and `in_place` brings the cursor to where it is
reckoned to be, whatever the terminal made of the text.

Rich's tables, which Textual lays out with, come from wcwidth and are used for all other characters.
What belongs together (UAX #29, grapheme clusters) is found by wcwidth: Rich knows neither the
conjuncts of Devanagari nor skin tones.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from itertools import accumulate

from rich import _unicode_data, cells

_BASIC_PLANES_END = 0x20000
"""Behind them there are ideographs, tags and what is private: no vowel sign."""
_SKIN_TONES = range(0x1F3FB, 0x1F400)
"""They colour the emoji before them; where that is not known they are emoji of their own."""
_EMOJI_STYLE = "\ufe0f"

_UNSURE = re.compile(
    "[^"
    "\x20-\x7e\xa0-\xac\xae-\u02ff\u0370-\u0377\u037a-\u037f\u0384-\u0482\u048a-\u052f"
    "\u1e00-\u1fbc\u2010-\u2027\u2030-\u205e\u20a0-\u20bf\u2100-\u218b\u2190-\u2319"
    "\u2400-\u2426\u2460-\u25fc\u27e6-\u27ef\u2800-\u28ff"
    "\u3000-\u3029\u3041-\u3096\u309b-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uff01-\uff60"
    "]"
)
"""What is not Latin, Greek, Cyrillic, Chinese, Japanese, Korean or drawn of lines: all terminals
agree upon the width of those."""


@lru_cache(maxsize=4)
def widest_table(unicode_version: str = "auto") -> cells.CellTable:
    """Rich's table, but each character that a terminal may draw in a cell of its own has one."""
    table = _unicode_data.load(unicode_version)
    widths: list[tuple[int, int, int]] = []
    for start, end, width in table.widths:
        if width or start >= _BASIC_PLANES_END:
            widths.append((start, end, width))
            continue
        for code in range(start, end + 1):
            most = _most_cells(code)
            if widths and widths[-1][1:] == (code - 1, most):
                widths[-1] = (widths[-1][0], code, most)
            else:
                widths.append((code, code, most))
    return cells.CellTable(table.unicode_version, widths, table.narrow_to_wide)


def _most_cells(code: int) -> int:
    """The most cells that are drawn of a character which has none by Rich's table."""
    if code in _SKIN_TONES:
        return 2
    if unicodedata.category(chr(code)) == "Mc":
        return 2 if unicodedata.east_asian_width(chr(code)) == "W" else 1
    return 0


@lru_cache(maxsize=1)
def _widened() -> re.Pattern[str]:
    """A sign and the selector that makes a wide emoji of it, as of ❤."""
    narrow = "".join(map(re.escape, sorted(widest_table().narrow_to_wide)))
    return re.compile(f"[{narrow}]{_EMOJI_STYLE}")


def cell_length(text: str, unicode_version: str = "auto") -> int:
    """Return the cells that `text` takes at most: those of its characters, added up."""
    size = cells.get_character_cell_size
    total = sum([size(character, unicode_version) for character in text])
    return total + (len(_widened().findall(text)) if _EMOJI_STYLE in text else 0)


def grapheme_spans(
    text: str, unicode_version: str = "auto"
) -> tuple[list[tuple[int, int, int]], int]:
    """Return (start, end, cells) of each grapheme of `text`, and the cells of all of it."""
    from wcwidth import iter_graphemes  # most texts need no cutting, the first frame none

    parts = list(iter_graphemes(text))
    ends = list(accumulate(map(len, parts)))
    widths = [cell_length(part, unicode_version) for part in parts]
    return list(zip([0, *ends], ends, widths, strict=False)), sum(widths)


def chop_cells(text: str, width: int, unicode_version: str = "auto") -> list[str]:
    """Cut `text` into lines of at most `width` cells, each grapheme whole that has the room.

    Nothing is left out. Only a character that is wider than `width` makes a line that is, too.
    """
    if cells._is_single_cell_widths(text):
        return [text[start : start + width] for start in range(0, len(text), width)]
    lines, line, used = [], "", 0
    for start, end, size in grapheme_spans(text, unicode_version)[0]:
        parts = [(text[start:end], size)]
        if size > width:
            parts = [(one, cell_length(one, unicode_version)) for one in text[start:end]]
        for part, room in parts:
            if used + room > width and line:
                lines.append(line)
                line, used = "", 0
            line += part
            used += room
    return [*lines, line] if line else lines


def in_place(text: str) -> str:
    """Return what is written to a terminal of `text`, so that it takes the cells reckoned here.

    Where terminals may disagree, its cells are blanked first, and the cursor is put behind them
    afterwards: DECSC and DECRC (save and restore), CUF (forward).
    """
    if text.isascii() or not _UNSURE.search(text):
        return text
    room = cells.cell_len(text)
    return f"\x1b7{' ' * room}\x1b8{text}\x1b8\x1b[{room}C" if room else text


def measure_so() -> None:
    """Have Rich, and with it Textual, measure and cut text as is done here."""
    if cells._cell_len is _cell_len:
        return
    cells.load_cell_table = widest_table  # type: ignore[attr-defined]
    cells._cell_len = _cell_len
    cells.split_graphemes = grapheme_spans
    cells.chop_cells = chop_cells
    for measured in (cells.get_character_cell_size, cells.cached_cell_len):
        measured.cache_clear()


def _cell_len(text: str, unicode_version: str) -> int:
    return len(text) if cells._is_single_cell_widths(text) else cell_length(text, unicode_version)
