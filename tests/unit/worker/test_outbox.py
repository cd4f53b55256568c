"""The outbox keeps order and text, and loses nothing if the decoder outruns the reader."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, BinaryIO

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models

from fakes.waiting import PATIENCE_S
from quantchat.wire.messages import Alive, Failed, Finished, Memory, Progress, Tokens
from quantchat.wire.protocol import Event, decode_event
from quantchat.wire.variant import Ledger
from quantchat.worker.outbox import Outbox, _Pieces

LEDGER = Ledger("cpu", 1, {}, 0, -1, -1, -1, 2, 3, 4)


def byte_tokenizer() -> Tokenizer:
    """One token a byte, so that characters are cut in the middle of tokens.

    The letters that stand for bytes are GPT-2's (`bytes_to_unicode`), which most models use.
    """
    plain = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = (256 + n for n in range(256))
    letters = [chr(byte) if byte in plain else chr(next(others)) for byte in range(256)]
    tokenizer = Tokenizer(models.BPE(vocab={c: n for n, c in enumerate(letters)}, merges=[]))
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


WORDS = ["▁", "a", "é", "▁the", "日", "▁▁", "."]
BYTES = len(WORDS)
"""Id of the first of 256 tokens for bytes; the one after the last is special, and not shown."""


def byte_fallback_tokenizer(strip: bool) -> Tokenizer:
    """As Llama 2's (`strip`: the space before the first word) or Gemma's, with a few words."""
    vocabulary = [*WORDS, *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={token: number for number, token in enumerate(vocabulary)},
            merges=[],
            byte_fallback=True,
        )
    )
    tokenizer.add_special_tokens([AddedToken("</s>", special=True)])
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            *([decoders.Strip(" ", 1, 0)] if strip else []),
        ]
    )
    return tokenizer


TOKENIZERS = {strip: byte_fallback_tokenizer(strip) for strip in (False, True)}
END = TOKENIZERS[True].token_to_id("</s>")


def read_alone(ids: list[int], strip: bool) -> str:
    """The text of `ids`: of each run of bytes what is UTF-8 from its beginning, then U+FFFD."""
    text, run = "", b""
    for token in [*(i for i in ids if i != END), None]:
        if token is not None and token >= BYTES:
            run += bytes([token - BYTES])
            continue
        try:
            text += run.decode()
        except UnicodeDecodeError as error:
            text += run[: error.start].decode() + "\ufffd" * (len(run) - error.start)
        run = b""
        if token is not None:
            text += WORDS[token].replace("▁", " ")
    return text.removeprefix(" ") if strip else text


chunks = st.one_of(
    # No byte for a space: whether one before a broken character is stripped depends on that.
    st.integers(0, END).filter(lambda token: token != BYTES + 0x20).map(lambda token: [token]),
    st.sampled_from(["\n", "é", "日", "👩"]).map(lambda c: [BYTES + b for b in c.encode()]),
    st.sampled_from([0x0A, 0xE2, 0x82, 0xF0]).map(lambda byte: [BYTES + byte]),
)
NEWLINE, CUT = BYTES + 0x0A, BYTES + 0xE2


@given(st.lists(chunks, max_size=12), st.booleans())
@example([[NEWLINE], [CUT], [1]], True)
@example([[3], [NEWLINE], [END], [CUT], [NEWLINE], [3], [NEWLINE], [CUT], [0], [2]], False)
def test_pieces_of_bytes_join_to_their_text(parts: list[list[int]], strip: bool) -> None:
    """Whatever bytes are said: nothing is lost, nothing doubled, and no exception."""
    ids = [token for part in parts for token in part]
    tokenizer = TOKENIZERS[strip]
    pieces = _Pieces(tokenizer)
    joined = "".join(map(pieces.step, ids))
    alone = read_alone(ids, strip)
    held_back = alone[len(joined) :]
    assert joined + held_back == alone
    assert not held_back.strip("\ufffd")  # bytes that may yet become a character, and no more
    decoded = tokenizer.decode(ids, skip_special_tokens=True)
    if "\ufffd" not in decoded:
        assert joined == decoded
    assert (pieces.step(1), pieces.step(1)) == (f"{held_back}a", "a")


@pytest.fixture
def channel() -> Iterator[tuple[Outbox, BinaryIO]]:
    read, write = os.pipe()
    with os.fdopen(read, "rb") as reader:
        yield Outbox(write), reader


def until_finished(reader: BinaryIO) -> list[Event]:
    events: list[Event] = []
    while not (events and isinstance(events[-1], Finished)):
        events.append(decode_event(reader.readline()))
    return events


def tokens_of(events: list[Event]) -> tuple[list[int], str]:
    batches = [event for event in events if isinstance(event, Tokens)]
    assert all(len(b.ids) == len(b.pieces) == len(b.times_ns) for b in batches)
    return [i for b in batches for i in b.ids], "".join(p for b in batches for p in b.pieces)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_sign_of_life_when_there_is_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    # Who writes to nobody ends the process: here, only the thread.
    monkeypatch.setattr("quantchat.worker.outbox.end_now", sys.exit)
    before = set(threading.enumerate())
    read, write = os.pipe()
    outbox = Outbox(write, alive_s=0.01)
    with os.fdopen(read, "rb") as reader:
        assert decode_event(reader.readline()) == Alive()
        outbox.send(Progress("importing"))
        while (event := decode_event(reader.readline())) == Alive():
            pass
        assert event == Progress("importing")
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
        assert not thread.is_alive()
    os.close(write)


@pytest.mark.parametrize("text", ["plain", "naïve 日本 👩\u200d💻 end", ""])
def test_pieces_join_to_the_text(channel: tuple[Outbox, Any], text: str) -> None:
    outbox, reader = channel
    outbox.serve(byte_tokenizer(), lambda: Memory(LEDGER))
    outbox.begin(7)
    for number, byte in enumerate(text.encode()):
        outbox.token(byte, number)
    outbox.end(7, "eos", 99)
    events = until_finished(reader)
    ids, pieces = tokens_of(events)
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert bytes(ids).decode() == pieces == finished.text == text
    assert (finished.turn, finished.reason, finished.output_tokens) == (7, "eos", len(ids))
    assert isinstance(events[-2], Memory)


def test_a_character_cut_at_the_end_is_not_lost(channel: tuple[Outbox, Any]) -> None:
    outbox, reader = channel
    outbox.serve(byte_tokenizer(), lambda: Memory(LEDGER))
    outbox.begin(1)
    for byte in b"ok" + "é".encode()[:1]:
        outbox.token(byte, 0)
    outbox.end(1, "length", 0)
    events = until_finished(reader)
    finished = events[-1]
    assert isinstance(finished, Finished)
    ids, pieces = tokens_of(events)
    assert len(ids) == 3
    assert finished.text.startswith(pieces)
    assert finished.text.startswith("ok")
    assert len(finished.text) > 2


def test_a_second_answer_begins_anew(channel: tuple[Outbox, Any]) -> None:
    outbox, reader = channel
    outbox.serve(byte_tokenizer(), lambda: Memory(LEDGER))
    for turn, text in ((1, b"first"), (2, b"second")):
        outbox.begin(turn)
        for byte in text:
            outbox.token(byte, 0)
        outbox.end(turn, "eos", 0)
        finished = until_finished(reader)[-1]
        assert isinstance(finished, Finished)
        assert finished.text.encode() == text


def test_order_is_kept_and_many_tokens_are_batched(channel: tuple[Outbox, Any]) -> None:
    outbox, reader = channel
    outbox.serve(byte_tokenizer(), lambda: Memory(LEDGER))
    outbox.send(Progress("before"))
    outbox.begin(1)
    for number in range(5000):
        outbox.token(ord("a") + number % 26, number)
    outbox.end(1, "length", 0)
    events = until_finished(reader)
    assert events[0] == Progress("before")
    times = [t for event in events if isinstance(event, Tokens) for t in event.times_ns]
    assert times == list(range(5000))
    assert len(events) < 1000


def test_the_memory_of_an_answer_is_read_before_its_cache_is_forgotten(
    channel: tuple[Outbox, Any],
) -> None:
    outbox, reader = channel
    now = [replace(LEDGER, kv_cache=512)]
    outbox.serve(byte_tokenizer(), lambda: Memory(now[0]))
    outbox.send(Progress("x" * 2**17))  # more than a pipe takes: the thread waits for the reader
    outbox.begin(1)
    outbox.end(1, "length", 0)
    now[0] = replace(LEDGER, kv_cache=0)
    memory = until_finished(reader)[-2]
    assert isinstance(memory, Memory)
    assert memory.ledger.kv_cache == 512


def test_an_answer_with_a_character_broken_after_a_newline_ends(
    channel: tuple[Outbox, Any],
) -> None:
    outbox, reader = channel
    outbox.serve(TOKENIZERS[True], lambda: Memory(LEDGER))
    outbox.begin(1)
    for token in (3, NEWLINE, CUT, 1, 3):
        outbox.token(token, 0)
    outbox.end(1, "length", 0)
    assert tokens_of(until_finished(reader))[1] == "the\n\ufffda the"


def test_what_breaks_an_answer_is_reported_and_the_next_one_is_given(
    channel: tuple[Outbox, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox, reader = channel
    outbox.serve(byte_tokenizer(), lambda: Memory(LEDGER))

    def broken(_pieces: Any, token: int) -> str:
        if token == ord("!"):
            raise RuntimeError("out of luck")
        return chr(token)

    monkeypatch.setattr("quantchat.worker.outbox._Pieces.step", broken)
    for turn, text in ((1, b"ab!cd"), (2, b"ok")):
        outbox.begin(turn)
        for byte in text:
            outbox.token(byte, 0)
            outbox.flush(PATIENCE_S)
        assert outbox.complete(turn) is (turn == 1)
        outbox.end(turn, "eos", 0)
    events = until_finished(reader)
    failure = next(event for event in events if isinstance(event, Failed))
    assert (failure.kind, failure.turn) == ("internal", 1)
    assert "out of luck" in failure.reason
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert (finished.turn, finished.text) == (2, "ok")
    assert tokens_of(events)[1] == "abok"


def test_what_breaks_outside_of_an_answer_is_the_variant_s_failure(
    channel: tuple[Outbox, Any],
) -> None:
    outbox, reader = channel
    outbox.send(object())  # type: ignore[arg-type]
    outbox.send(Progress("still there"))
    failure, progress = (decode_event(reader.readline()) for _ in range(2))
    assert isinstance(failure, Failed)
    assert failure.turn == -1
    assert progress == Progress("still there")


def test_a_thread_that_cannot_report_ends_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Outbox):
        def _next(self) -> Any:
            raise RuntimeError("out of luck")

    ended = threading.Event()
    monkeypatch.setattr("quantchat.worker.outbox.end_now", ended.set)
    Broken(-1)
    assert ended.wait(PATIENCE_S)
