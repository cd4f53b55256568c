"""The first signal asks a command to stop, the second ends it; partial results are saved."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator

import pytest

from fakes.waiting import until
from quantchat.host import signals


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The statuses with which the process would have ended at once."""
    found: list[int] = []
    monkeypatch.setattr(os, "_exit", found.append)
    yield found


async def test_ctrl_c_asks_then_ends_then_exits(exits: list[int]) -> None:
    calls: list[str] = []
    with (
        signals.handled(calls.append),
        signals.on_signals(lambda: calls.append("ask"), lambda: calls.append("end")),
    ):
        send(signal.SIGINT)
        await until(lambda: len(calls) == 2)
        assert calls == ["ask", signals.PRESS_AGAIN]
        send(signal.SIGINT)
        await until(lambda: len(calls) == 3)
        assert calls[2] == "end"
        assert exits == []
        send(signal.SIGINT)
        assert exits == [130]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_the_others_end_by_themselves(
    number: signal.Signals, exits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signals, "GRACE_S", 0.0)
    calls: list[str] = []
    with signals.on_signals(lambda: calls.append("ask"), lambda: calls.append("end")):
        send(number)
        send(number)  # a terminal that goes and its shell both send one
        await until(lambda: "end" in calls)
    assert sorted(calls) == ["ask", "end"]
    assert exits == []


async def test_a_loop_that_hangs_does_not_keep_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "GRACE_S", 0.0)
    monkeypatch.setattr(signals, "LAST_S", 0.0)
    status: list[int] = []
    ended = threading.Event()

    def end(number: int) -> None:
        status.append(number)
        ended.set()

    monkeypatch.setattr(os, "_exit", end)
    with signals.on_signals(lambda: None):
        send(signal.SIGTERM)
        assert ended.wait(60)  # and the loop runs nothing meanwhile
    assert status == [128 + signal.SIGTERM]


@pytest.mark.parametrize("number", signals.NUMBERS)
async def test_what_is_ignored_stays_ignored(number: signal.Signals) -> None:
    calls: list[str] = []
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with signals.on_signals(lambda: calls.append("ask")):
            send(number)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)
    assert calls == []


@pytest.mark.parametrize("number", signals.NUMBERS)
def test_while_a_result_is_saved_the_first_signals_end_nothing(
    number: signal.Signals, exits: list[int]
) -> None:
    async def work() -> str:
        with signals.on_signals(lambda: None):
            return "result"

    before = [signal.getsignal(one) for one in signals.NUMBERS]
    with signals.handled():
        result = asyncio.run(work())
        send(number)
        send(number)
        saved = result
    assert saved == "result"
    assert exits == []
    assert [signal.getsignal(one) for one in signals.NUMBERS] == before


def test_before_anything_has_begun_a_signal_ends_it() -> None:
    with pytest.raises(KeyboardInterrupt), signals.handled():
        send(signal.SIGINT)
    with pytest.raises(SystemExit) as ended, signals.handled():
        send(signal.SIGTERM)
    assert ended.value.code == 143
