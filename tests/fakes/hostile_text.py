"""Text that would act on a terminal, in thousands of forms, each with a name that identifies it.

Sources: ECMA-48 (control functions, in 7-bit and 8-bit forms), xterm's "Control Sequences" (OSC,
DCS, private modes), the kitty graphics protocol (APC), iTerm2's and ConEmu's OSC.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence

CUT = "\ue000"
"""Stands, in a payload, at the place where the text is cut into two chunks. No text itself."""

COPIES = 2
"""How often each form comes with each cut, each time in another place of the Markdown."""

_NAME = "\ue001"
"""Stands, in a form, for the name."""

_OSC = (
    "0;@", "1;@", "2;@", "4;1;rgb:00/00/@", "7;file://h/@", "8;;http://h/@", "8;id=1;file:///@",
    "9;@", "9;4;1;@", "10;@", "22;@", "50;@", "52;c;@", "52;p;@", "104;@", "112;@", "133;A;@",
    "633;E;@", "777;notify;t;@", "1337;File=inline=1:@", "L@",
)  # fmt: skip
_DCS = ("$q@", "+q@", "q#0;2;0;0;0@", "tmux;\x1b\x1b]52;c;@", "0;1|17/@", "=1s@")
_STRINGS: tuple[tuple[str, str, Sequence[str]], ...] = (
    ("\x1b]", "\x9d", _OSC),
    ("\x1bP", "\x90", _DCS),
    ("\x1b_", "\x9f", ("Ga=T,f=24;@", "@")),
    ("\x1b^", "\x9e", ("@", "x@")),
    ("\x1bX", "\x98", ("@", "x@")),
)
_ENDS = ("\x07", "\x1b\\", "\x9c", "\x18", "\x1a", "\x1b", "")
_CSI = (
    "2J", "3J", "H", "999;1H", "?1049l", "?1049h", "?25l", "?7l", "?1000h", "?1003l", "?2004l",
    "?2026h", "?5h", "6n", "5n", "c", ">c", "=c", ">q", "?2026$p", "21t", "8;1;1t", "18t", "5i",
    "31m", "8m", "38;5;9m", "38;2;1;2;3m", "4:3m", "!p", '"q', "1;5r", "s", "u", ">1u", "<u",
    "2 q", "10S", "10T", "5L", "5M", "5P", "20h", "?3h", "1$}", "\x1b[A", "\x08\x082J", "2\x18J",
)  # fmt: skip
_ESC = (
    "c", "7", "8", "D", "E", "M", "H", "Z", "N", "O", "=", ">", "(0", ")B", "#8", "%@", " G", "l",
    "6", "V",
)  # fmt: skip
_SINGLE = (
    *map(chr, (*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0))),
    "\u00ad", "\u061c", "\u115f", "\u180e", "\u200b", "\u200e", "\u200f", "\u2028", "\u2029",
    *map(chr, (*range(0x202A, 0x202F), *range(0x2060, 0x2070))), "\u3164", "\ufe00", "\ufeff",
    "\uffa0", "\ufff9", "\U000e0001", "\U000e0041", "\U000e0100",
    "\ud800", "\udbff", "\udc80", "\udc9b", "\udfff", "\udc9b2J", "\udc9d52;c;",
)  # fmt: skip
_PARSED = (
    "&#27;]0;", "&#x1b;[2J", "&#x9b;2J", "&#155;", "&#13;", "&#12;", "&#x202E;", "&#8203;",
    "&lrm;", "&rlm;", "&shy;", "&ZeroWidthSpace;", "&#x2028;", "http://h/%1B]52;c;%07",
    "http://h/%E2%80%AE", "http://h/%C2%9B2J", "<http://h/%1b%5b2J>",
)  # fmt: skip
"""What is a control only once Markdown has parsed it."""

_MARKUP = ("[red]@[/]", "[@click=app.quit]@[/]", "[link=http://h/]@[/link]", "[$error on red]@")
"""What Textual's and Rich's own markup would make of it."""

_STARTS = ("\x1b", "\x1b[", "\x1b]52;c;", "\x9b", "\x9d", "\x90")
"""What would take what follows with it, if that were the screen's own."""


def _forms() -> Iterator[str]:
    for short, eight_bit, bodies in _STRINGS:
        for introducer, body, end in itertools.product((short, eight_bit), bodies, _ENDS):
            yield f"{introducer}{body.replace('@', _NAME)}{end}"
    for introducer, body in itertools.product(("\x1b[", "\x9b"), _CSI):
        yield f"{introducer}{body}{_NAME}"
    yield from (f"\x1b{letter}{_NAME}" for letter in _ESC)
    yield from (f"{start}{_NAME}" for start in (*_SINGLE, *_PARSED))
    yield from (f"{_NAME}{end}" for end in (*_SINGLE, *_STARTS))
    yield from (form.replace("@", _NAME) for form in _MARKUP)


_CUTS = tuple((form, place) for form in _forms() for place in range(len(form)))

COUNT = COPIES * len(_CUTS)
"""How many payloads there are."""

SAMPLE = range(0, COUNT, 11)
"""Some of each kind, where there is no need of all."""

SEQUENCES = frozenset(
    f"\x1b{start}{body}" for start, bodies in (("[", _CSI), ("", _ESC)) for body in bodies
)
"""Short ones that carry no name by which they would be known, were they let through."""


def name(number: int) -> str:
    """What payload `number` is known by, on the screen or, if it did its work, in a control."""
    return f"q{number:05d}q"


def named(text: str) -> set[str]:
    """Return the names of payloads in `text`."""
    return set(re.findall(r"q\d{5}q", text))


def payload(number: int) -> str:
    """Payload `number`, below `COUNT`; `CUT` stands where it is cut."""
    form, place = _CUTS[number % len(_CUTS)]
    return (form[:place] + CUT + form[place:]).replace(_NAME, name(number))
