"""Noticing a suspended machine and busy foreign processes during a measurement."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fakes.scripted_worker import Script, ledger
from fakes.waiting import until
from quantchat.host.limits import CpuThrottling
from quantchat.measuring import watch as watching
from quantchat.measuring.measurement import Measurement
from quantchat.measuring.record import record_measurement
from quantchat.measuring.rounds import TRIES, Plan, Task
from quantchat.measuring.watch import CHECK_S, FREQUENCY_EVERY_S, LATE_S, LEAST_READINGS, Watch
from quantchat.snapshot import store
from quantchat.system import disturbance
from quantchat.system.disturbance import CpuClock, CpuFrequency, CpuTime, busiest, stopped_processes
from quantchat.system.sampler import DeviceSampler
from unit.measuring.test_rounds import opened


class FakeClock(CpuClock):
    """Four cores, of which others keep `by_others` busy; each turn takes ten seconds."""

    def __init__(self, by_others: float = 0.0, own: float = 2.0) -> None:
        super().__init__()
        self._cores = [0, 1, 2, 3]
        self.by_others, self.own = by_others, own
        self.now = CpuTime(0.0, 0.0, 0.0)
        self.programs: dict[int, tuple[str, float]] = {}

    def read(self) -> CpuTime:
        at_s, busy_s, own_s = self.now
        self.now = CpuTime(
            at_s + 10.0, busy_s + 10.0 * (self.by_others + self.own), own_s + 10.0 * self.own
        )
        return CpuTime(at_s, busy_s, own_s)

    def others(self) -> dict[int, tuple[str, float]]:
        return dict(self.programs)


def side(label: str, pid: int | None = None, device: str = "cpu") -> Any:
    return SimpleNamespace(label=label, pid=pid, ledger=ledger(device=device))


class FakeFrequency(CpuFrequency):
    """Shows one of `shown` after the other, in MHz, and then the last one for ever."""

    def __init__(self, *shown: float) -> None:
        self.shown = list(shown)

    def mhz(self) -> float | None:
        return self.shown.pop(0) if len(self.shown) > 1 else self.shown[0]


class FakeThrottling(CpuThrottling):
    """A container's limit that has stopped us for `stopped` seconds."""

    def __init__(self) -> None:
        self.stopped = 0.0

    def seconds(self) -> float:
        return self.stopped


@pytest.fixture
def asleep() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        yield process
        process.kill()


async def test_a_worker_that_is_stopped_is_seen(asleep: subprocess.Popen[bytes]) -> None:
    watch = Watch([side("A", os.getpid()), side("B", asleep.pid)], FakeClock())
    with watch.turn(1) as found:
        watch.check(CHECK_S)
    assert found == []
    with watch.turn(1) as found:
        asleep.send_signal(signal.SIGSTOP)
        await until(lambda: stopped_processes([asleep.pid]))
        watch.check(1.5)
        watch.check(0.4)
        asleep.send_signal(signal.SIGCONT)
        await until(lambda: not stopped_processes([asleep.pid]))
        watch.check(CHECK_S)
    assert found == ["B: its worker was stopped for about 1.9 s"]


def test_a_suspended_machine_and_a_stopped_program_are_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept = iter([100.0, *[107.25] * 5])
    monkeypatch.setattr(watching, "suspended_s", lambda: next(slept))
    watch = Watch([side("A"), side("B")], FakeClock())
    with watch.turn(1) as found:
        pass
    assert found == ["the machine was suspended for 7.2 s"]
    assert watch.flags == []
    for number in (0, 2):
        with watch.turn(number) as found:
            watch.check(CHECK_S + LATE_S + 2)
        assert found == []  # it may be nothing but a busy machine, which would never end
    told = (
        "round 2: this program did not run for 3.1 s in all: the machine was overloaded, or frozen"
    )
    assert watch.flags == [told]


def test_the_two_clocks_of_this_machine() -> None:
    assert disturbance.suspended_s() >= -1e-3


@pytest.mark.parametrize(
    ("by_others", "devices", "flagged"),
    [
        (0.0, ("cpu", "cpu"), False),
        (0.3, ("cpu", "cpu"), False),
        (0.5, ("cpu", "cpu"), True),
        (3.9, ("cpu", "cpu"), True),
        (0.5, ("cuda:0", "cuda:0"), False),
        (0.5, ("cuda:0", "cpu"), True),
        (3.0, ("cuda:0", "cuda:0"), True),
        (3.9, ("cpu", "server"), False),  # it may be the server itself
    ],
)
def test_what_other_programs_take_of_the_processor(
    by_others: float, devices: tuple[str, str], flagged: bool
) -> None:
    clock = FakeClock(by_others)
    watch = Watch([side(label, device=at) for label, at in zip("AB", devices, strict=True)], clock)
    clock.programs = {1: ("idle", 5.0), 2: ("cc1plus", 1.0)}
    watch.between_rounds()
    for number in (0, 1, 1, 2):
        with watch.turn(number):
            pass
        clock.by_others = by_others
    clock.programs = {1: ("idle", 5.0), 2: ("cc1plus", 9.0), 3: ("ld", 2.0)}
    watch.between_rounds()
    told = (
        f"processor: other programs took {by_others:.1f} of 4 cores in round 1, 2 "
        "(most: cc1plus, ld)"
    )
    assert watch.flags == ([told] if flagged else [])


def test_a_round_of_a_moment_is_not_judged() -> None:
    watch = Watch([side("A"), side("B")], CpuClock())
    for number in range(5):
        with watch.turn(number):
            pass
    assert watch.flags == []


def test_the_time_of_a_process_that_follows_another_one_is_its_own() -> None:
    used = busiest({1: ("make", 50.0), 2: ("ld", 1.0)}, {1: ("cc1", 3.0), 2: ("ld", 1.5)})
    assert used == {"cc1": 3.0, "ld": 0.5}


def test_our_own_work_is_not_that_of_others() -> None:
    """A child of ours that has worked counts as ours, also once it has ended."""
    clock = CpuClock()
    before = clock.read()
    subprocess.run([sys.executable, "-c", "sum(range(10**6))"], check=True)
    after = clock.read()
    assert after.own_s > before.own_s
    assert clock.cores == len(os.sched_getaffinity(0))
    assert os.getpid() not in clock.others()


async def test_a_turn_that_was_stopped_is_measured_again_or_left_out(tmp_path: Path) -> None:
    comparison = await opened({"A": Script(), "B": Script()}, tmp_path)
    plan = Plan((Task("one"), Task("two")), rounds=2, warmup=1)
    measurement = Measurement(comparison, plan, DeviceSampler())
    # The warm-up is stopped, which is nothing; the first turn once; the last one each time.
    stops = iter([1, 1, 0, 0, 0, *[1] * TRIES])
    turn = measurement._watch.turn

    @contextlib.contextmanager
    def stopping(round_number: int) -> Iterator[list[str]]:
        with turn(round_number) as found:
            if next(stops):
                measurement._watch._stopped_s["A"] = 3.0
            yield found

    measurement._rounds.watch = stopping
    await measurement.run()
    snapshot = record_measurement(comparison, DeviceSampler(), measurement)
    await comparison.close()
    assert next(stops, None) is None
    assert [(turn.task, turn.round) for turn in snapshot.turns] == [(1, 1), (2, 1), (1, 2)]
    assert snapshot.measurement is not None
    disturbed = [(one.task, one.round, one.left_out) for one in snapshot.measurement.disturbed]
    assert disturbed == [(1, 1, False), (2, 2, False), (2, 2, False), (2, 2, True)]
    reason = "A: its worker was stopped for about 3.0 s"
    assert {one.reason for one in snapshot.measurement.disturbed} == {reason}
    assert (
        f"prompt 2, round 2: left out, because it was disturbed each time ({reason})"
        in snapshot.measurement.flags
    )
    assert f"1 turn was measured again: {reason}" in snapshot.measurement.flags
    assert store.load(store.save(snapshot, tmp_path / "saved")) == snapshot


# ------------------------------------------------------------ frequency, and a container's limit


def turn_at(watch: Watch, number: int, *mhz: float) -> list[str]:
    """A turn during which the processor runs at these frequencies, one after the other."""
    watch.frequency = FakeFrequency(*mhz)
    with watch.turn(number) as found:
        for _ in mhz:
            watch.check(FREQUENCY_EVERY_S)
    return found


def test_a_frequency_that_falls_during_a_turn_is_a_disturbance() -> None:
    watch = Watch([side("A"), side("B")], FakeClock())
    assert turn_at(watch, 1, *[3000.0] * 4, *[2000.0] * 4) == [
        "the processor's frequency changed from 3000 to 2000 MHz"
    ]
    assert turn_at(watch, 1, *[2000.0] * 8) == []  # slow, but steady: the turn counts
    assert turn_at(watch, 1, *[2000.0, 2150.0] * 4) == []  # the usual flutter
    assert turn_at(watch, 1, 1000.0, *[2000.0] * 7) == []  # one reading on the way up
    assert turn_at(watch, 1, *[3000.0, 1000.0] * (LEAST_READINGS // 2 - 1)) == []  # too few
    assert watch.flags == []


def test_a_frequency_that_differs_between_rounds_is_named() -> None:
    watch = Watch([side("A"), side("B")], FakeClock())
    turn_at(watch, 0, *[4000.0] * 8)  # the warm-up does not count
    for number, mhz in ((1, 3000.0), (2, 2900.0), (3, 2400.0)):
        assert turn_at(watch, number, *[mhz] * 8) == []
    assert watch.flags == ["processor: frequency between 2400 MHz (round 3) and 3000 MHz (round 1)"]


@pytest.mark.parametrize("devices", [("cuda:0", "cuda:0"), ("server", "server")])
def test_the_frequency_does_not_matter_beside_other_devices(devices: tuple[str, str]) -> None:
    watch = Watch([side(label, device=at) for label, at in zip("AB", devices, strict=True)])
    assert turn_at(watch, 1, *[3000.0] * 4, *[2000.0] * 4) == []


def test_a_kernel_that_shows_no_frequency_says_nothing(tmp_path: Path) -> None:
    assert CpuFrequency(tmp_path).mhz() is None
    for core in os.sched_getaffinity(0):
        (folder := tmp_path / f"cpu{core}" / "cpufreq").mkdir(parents=True)
        (folder / "scaling_cur_freq").write_text("2400000\n")
    assert CpuFrequency(tmp_path).mhz() == 2400.0
    (folder / "scaling_cur_freq").write_text("<unknown>\n")
    found = CpuFrequency(tmp_path).mhz()
    assert found == (2400.0 if len(os.sched_getaffinity(0)) > 1 else None)


def test_a_container_that_is_stopped_by_its_limit_is_named() -> None:
    limit = FakeThrottling()
    watch = Watch([side("A"), side("B")], FakeClock(), throttling=limit)
    for number, stopped_s in ((0, 5.0), (1, 0.1), (2, 0.5), (3, 0.0), (4, 1.0)):
        with watch.turn(number) as found:  # of ten seconds
            limit.stopped += stopped_s
        assert found == []
    assert watch.flags == [
        "processor: the CPU limit of the container stopped our processes for 1.5 s in round 2, 4"
    ]
