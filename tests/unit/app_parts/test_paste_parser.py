"""Pasted bytes become text, whatever they contain and however they are split."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual import _parser, events
from textual._xterm_parser import XTermParser
from textual.message import Message

from fakes.hostile_text import CUT, SAMPLE, payload
from quantchat.app.pasting import PasteParser

START, END = "\x1b[200~", "\x1b[201~"
TEXTS = st.text().filter(lambda text: END not in text) | st.sampled_from(
    [payload(number).replace(CUT, "") for number in SAMPLE]
)
KEYS = st.text(st.characters(codec="ascii", categories=["L", "N"]))


@pytest.fixture(autouse=True)
def time_flies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the clock is a second later: what can time out has timed out."""
    seconds = itertools.count()
    monkeypatch.setattr(_parser, "get_time", lambda: float(next(seconds)))


def read(*pieces: str) -> list[Message]:
    """What a driver makes of `pieces`, read one after another with time to spare."""
    parser = PasteParser()
    return [m for piece in pieces for m in (*parser.feed(piece), *parser.tick())]


def pasted(messages: list[Message]) -> list[str]:
    return [message.text for message in messages if isinstance(message, events.Paste)]


def typed(messages: list[Message]) -> list[str | None]:
    return [message.character for message in messages if isinstance(message, events.Key)]


@given(KEYS, TEXTS, KEYS, st.lists(st.integers(min_value=0), max_size=5))
def test_a_paste_is_one_text_between_keys(
    before: str, text: str, after: str, places: list[int]
) -> None:
    rest = f"{text}{END}{after}"
    cuts = sorted({place % (len(rest) + 1) for place in places} | {0, len(rest)})
    pieces = [rest[a:b] for a, b in itertools.pairwise(cuts)]
    messages = read(*([before] if before else []), START, *pieces)
    assert pasted(messages) == [text]
    assert typed(messages) == [*before, *after]


@pytest.mark.parametrize("cut", range(1, len(START)))
def test_its_start_may_come_in_two_pieces(cut: int) -> None:
    parser = PasteParser()
    # Without a pause between them: an ESC and nothing more is the key.
    messages = [*parser.feed(f"a{START[:cut]}"), *parser.feed(f"{START[cut:]}\x11{END}b")]
    assert (pasted(messages), typed(messages)) == (["\x11"], ["a", "b"])


def test_two_pastes_and_a_key_are_three() -> None:
    messages = read(f"{START}one{END}x{START}{END}{START}two\x1b[A\x11\r{END}")
    assert pasted(messages) == ["one", "", "two\x1b[A\x11\r"]
    assert typed(messages) == ["x"]


def test_escape_alone_is_the_key() -> None:
    messages = read("\x1b", "[200~x")
    assert pasted(messages) == [] and typed(messages) == ["\x1b", *"[200~x"]


def test_textual_looks_at_no_character_of_a_long_paste(monkeypatch: pytest.MonkeyPatch) -> None:
    fed: list[str] = []
    feed = XTermParser.feed

    def counted(parser: XTermParser, data: str) -> Iterable[Message]:
        fed.append(data)
        return feed(parser, data)

    monkeypatch.setattr(XTermParser, "feed", counted)
    text = "some words\n" * 10_000
    whole = f"a{START}{text}{END}b"
    messages = read(*(whole[at : at + 1024] for at in range(0, len(whole), 1024)))
    assert (pasted(messages), typed(messages)) == ([text], ["a", "b"])
    assert len("".join(fed)) == len(f"a{START}{END}b")
