"""The outbox: order kept, text whole, nothing lost when the decoder is faster than the reader."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, BinaryIO

import pytest
from tokenizers import Tokenizer, decoders, models

from quantchat.worker.outbox import Outbox
from quantchat.worker.protocol import Alive, Event, Finished, Memory, Progress, Tokens, decode_event
from quantchat.worker.variant import Ledger

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
