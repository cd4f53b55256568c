"""Incoming commands: which turn a stop belongs to, and what a command overtakes."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from fakes.waiting import PATIENCE_S
from quantchat.wire.messages import ScoreTokens, Stop, StopScoring
from quantchat.wire.protocol import Command, encode
from quantchat.worker.inbox import Inbox

FORCE = ScoreTokens(1, [], [5])


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Inbox, Callable[[Command], None]]]:
    # At the end of its pipe a worker ends: here that would be the whole test run, with status 0.
    ended = threading.Event()
    monkeypatch.setattr("quantchat.worker.inbox.end_now", ended.set)
    read, write = os.pipe()
    inbox = Inbox(read, void)
    yield inbox, lambda command: void(os.write(write, encode(command)))
    os.close(write)
    assert ended.wait(PATIENCE_S)  # before the real one is put back


def void(_: object) -> None:
    return None


def wait_for(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_a_stop_is_for_its_own_turn(pipe: tuple[Inbox, Callable[[Command], None]]) -> None:
    inbox, send = pipe
    send(Stop(1))
    wait_for(lambda: inbox.stopped(1))
    assert not inbox.stopped(2)
    send(Stop(2))
    wait_for(lambda: inbox.stopped(2))


def test_an_exception_while_reading_is_reported_before_the_worker_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard: list[object] = []
    ended = threading.Event()

    def broken(_line: bytes) -> Command:
        raise RuntimeError("out of luck")

    def end() -> None:
        heard.append("ended")
        ended.set()

    monkeypatch.setattr("quantchat.worker.inbox.decode_command", broken)
    monkeypatch.setattr("quantchat.worker.inbox.end_now", end)
    read, write = os.pipe()
    Inbox(read, heard.append)
    os.write(write, encode(FORCE))
    assert ended.wait(PATIENCE_S)
    os.close(write)
    error, last = heard
    assert (str(error), last) == ("out of luck", "ended")


def test_whatever_comes_after_a_command_overtakes_it(
    pipe: tuple[Inbox, Callable[[Command], None]],
) -> None:
    inbox, send = pipe
    send(FORCE)
    assert inbox.next() == FORCE
    assert not inbox.cancelled()
    send(StopScoring())
    wait_for(inbox.cancelled)
    send(FORCE)
    assert inbox.next() == FORCE
    wait_for(lambda: not inbox.cancelled())


def test_a_command_that_waits_behind_another_overtakes_it(
    pipe: tuple[Inbox, Callable[[Command], None]],
) -> None:
    inbox, send = pipe
    send(FORCE)
    send(FORCE)
    wait_for(lambda: inbox._received == 2)
    inbox.next()
    assert inbox.cancelled()
