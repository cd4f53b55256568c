"""Stop strings and the limit of thoughts, token by token as a decode loop meets them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from fakes.waiting import PATIENCE_S
from quantchat.wire.messages import Finished, Tokens
from quantchat.wire.protocol import decode_event
from quantchat.worker.outbox import Outbox
from quantchat.worker.text_marks import StopStrings
from quantchat.worker.thinking_limit import ThinkingLimit
from quantchat.worker.thoughts import CHANNEL, MESSAGE, START, Marks


def letters(*marks: str) -> Tokenizer:
    """One token a byte, and `marks`."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={c: n for n, c in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(one, special=True) for one in marks])
    return made


# ---------------------------------------------------------------- stop strings

texts = st.text("ab.", max_size=12)
stops = st.lists(st.text("ab.", min_size=1, max_size=4), max_size=3)


@given(texts, stops, st.data())
def test_no_part_of_a_stop_string_is_shown_however_the_output_is_cut(
    text: str, stop: list[str], data: st.DataObject
) -> None:
    ends = [n for n in range(len(text) + 1) if any(text[:n].endswith(one) for one in stop)]
    whole = StopStrings(stop).before(text)
    if ends:  # the string that is complete first; of several the longest
        longest = max(len(one) for one in stop if text[: ends[0]].endswith(one))
        assert whole == text[: ends[0] - longest]
    else:
        assert whole is None
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
    one = StopStrings(stop)
    shown = "".join(one.feed(text[a:b]) for a, b in zip([0, *cuts], [*cuts, None], strict=True))
    assert one.found is bool(ends)
    assert (text if whole is None else whole).startswith(shown)
    if ends:
        assert shown == whole
    else:  # held back is only what may yet become one
        rest = text[len(shown) :]
        assert not rest or any(string.startswith(rest) for string in stop)


def said(output: str, stop: list[str], *marks: str, reason: str = "length") -> Iterator[object]:
    """Yield the events of an answer of the tokens of `output`, whole or up to a stop string."""
    made = letters(*marks)
    read, write = os.pipe()
    with os.fdopen(read, "rb") as reader:
        outbox = Outbox(write)
        outbox.serve(made, None)  # type: ignore[arg-type]
        outbox.begin(1, [], stop)
        for at, token in enumerate(made.encode(output).ids):
            outbox.token(token, at)
        outbox.flush(PATIENCE_S)
        yield outbox.complete(1)
        outbox.end(1, reason, 10**6)
        events: list[object] = []
        while not (events and isinstance(events[-1], Finished)):
            events.append(decode_event(reader.readline()))
    os.close(write)
    yield from events


def test_an_answer_ends_before_a_stop_string_and_later_tokens_are_dropped() -> None:
    complete, *events = said("Paris.\nUser: and", ["User:", "never"])
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert complete, "the loop is asked to end"
    assert (finished.text, finished.reason) == ("Paris.\n", "stop_string")
    assert finished.output_tokens == len("Paris.\nUser:")
    assert finished.raw == "Paris.\nUser:", "what the model wrote can be looked at"
    streamed = [one for one in events if isinstance(one, Tokens)]
    assert "".join("".join(one.pieces) for one in streamed) == "Paris.\n"
    assert sum(len(one.ids) for one in streamed) == finished.output_tokens


def test_without_a_stop_string_in_it_an_answer_is_whole() -> None:
    complete, *events = said("Paris. Use", ["User:"], reason="eos")
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert not complete
    assert (finished.text, finished.reason, finished.raw) == ("Paris. Use", "eos", "")


def test_a_stop_string_ends_thoughts_too_as_on_a_server() -> None:
    _, *events = said("[THINK]Hm. User: x[/THINK]y", ["User:"], "[THINK]", "[/THINK]")
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert (finished.text, finished.thoughts, finished.reason) == ("", "Hm.", "stop_string")


# ---------------------------------------------------------------- the limit of thoughts


class Letters:
    """Decodes one token after the other."""

    def __init__(self, made: Tokenizer) -> None:
        self._made = made

    def step(self, token: int) -> str:
        return str(self._made.decode([token], skip_special_tokens=True))


def written(made: Tokenizer, model_says: str, most: int, prompt: str = "") -> str:
    """Return what is written where the model would say `model_says`, letter by letter."""
    limit = ThinkingLimit(made, Marks(made), Letters(made), made.encode(prompt).ids, most)
    ids = made.encode(model_says).ids
    wrote: list[int] = []
    while ids:
        inserted = limit.next_token
        wrote.append(ids.pop(0) if inserted is None else inserted)
        limit.add(wrote[-1])
    return str(made.decode(wrote, skip_special_tokens=False))


HARMONY = ("<|end|>", START, CHANNEL, MESSAGE)


@pytest.mark.parametrize(
    ("marks", "says", "prompt", "expected"),
    [
        (("[THINK]", "[/THINK]"), "[THINK]abcdefgh", "", "[THINK]abcd[/THINK]efgh"),
        (("[THINK]", "[/THINK]"), "abcdefgh", "[THINK]", "abcde[/THINK]fgh"),
        (("[THINK]", "[/THINK]"), "[THINK]a[/THINK]bcdefgh", "", "[THINK]a[/THINK]bcdefgh"),
        (("[THINK]", "[/THINK]"), "abcdefgh", "", "abcdefgh"),
        (
            HARMONY,
            f"{CHANNEL}analysis{MESSAGE}abcdefgh",
            "",
            f"{CHANNEL}analysis{MESSAGE}a<|end|>{START}assistant{CHANNEL}final{MESSAGE}bcdefgh",
        ),
    ],
)
def test_thoughts_are_ended_once_they_have_so_many_tokens(
    marks: tuple[str, ...], says: str, prompt: str, expected: str
) -> None:
    most = 11 if marks is HARMONY else 5
    assert written(letters(*marks), says, most, prompt) == expected


def test_a_closing_mark_of_several_tokens_is_inserted_whole() -> None:
    made = letters()
    limit = ThinkingLimit(
        made, Marks(made, named_marks=["(hm)", "(so)"]), Letters(made), made.encode("(hm)").ids, 3
    )
    wrote = ""
    for letter in "abcdefgh":
        inserted = limit.next_token
        token = made.encode(letter).ids[0] if inserted is None else inserted
        limit.add(token)
        wrote += made.decode([token])
    assert wrote == "abc(so)h"
