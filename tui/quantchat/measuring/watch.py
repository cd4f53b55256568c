"""Watch a measurement for disturbances, such as a suspended machine or a changed CPU frequency.

A turn during which a worker was stopped, the machine was suspended, or the CPU's frequency changed
is measured again, at most twice; if it is disturbed each time, it is left out. Each disturbed turn
is recorded. Four other disturbances only give a warning: load of other programs, a container's CPU
limit, a CPU frequency that differs between rounds, and a time in which quantchat's main process did
not run. To measure the turn again would not help, because a busy or hot machine may stay so.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from statistics import median

from quantchat.host.limits import CpuThrottling
from quantchat.host.watchdog import checking
from quantchat.session.live_variant import LiveVariant
from quantchat.system.disturbance import (
    CpuClock,
    CpuFrequency,
    busiest,
    stopped_processes,
    suspended_s,
)
from quantchat.wire.variant import EXTERNAL_SERVER

CHECK_S = 0.1
"""Seconds between two checks for stopped workers; a shorter stop may be missed."""

LATE_S = 1.0
"""A check that is this many seconds late means that the main process did not run, for example in a
frozen container."""

LEAST_SUSPENDED_S = 0.1
"""Shorter suspensions, in s, do not count as a disturbance."""

MOST_BY_OTHERS = 0.10
"""Share of the cores that other programs may use without a warning, if a variant runs on the
processor."""

MOST_BY_OTHERS_BESIDE_GPU = 0.50
"""The same limit if both variants run on a GPU, which leaves most cores idle."""

LEAST_JUDGED_S = 1.0
"""Shortest time, in s, for which the load is computed: CPU time is counted in steps of 10 ms."""

MOST_FREQUENCY_CHANGE = 0.10
"""Largest change of the CPU's frequency during a turn, or from one round to another, as a share of
the lower frequency. The speed of decoding follows the frequency."""

FREQUENCY_EVERY_S = 0.3
"""Seconds between two readings of the frequency: on many cores a reading takes a millisecond."""

LEAST_READINGS = 6
"""Fewest readings of the frequency that can show a change during a turn: among fewer, a single odd
reading would count as a change."""

MOST_THROTTLED = 0.02
"""Share of a round for which a container's CPU limit may stop quantchat's processes without a
warning."""

MOST_NAMED = 3
"""Largest number of other programs that a warning names."""


@dataclass
class ForeignCpuLoad:
    """CPU load of other processes while turns were measured."""

    seconds: float = 0.0
    """Duration of the turns."""
    by_others_s: float = 0.0
    """CPU seconds of other processes, on all cores together."""

    def add(self, seconds: float, by_others_s: float) -> None:
        """Add the times of a turn."""
        self.seconds += seconds
        self.by_others_s += by_others_s

    @property
    def cores(self) -> float | None:
        """The mean number of cores busy with other processes; None if the time is too short."""
        return max(0.0, self.by_others_s) / self.seconds if self.seconds >= LEAST_JUDGED_S else None


@dataclass
class Watch:
    """Watches the workers of `sides` and the machine during each `turn`, while `running`."""

    sides: Iterable[LiveVariant]
    clock: CpuClock = field(default_factory=CpuClock)
    loads: dict[int, ForeignCpuLoad] = field(default_factory=dict)
    """CPU load of other processes, by round."""
    frequency: CpuFrequency = field(default_factory=CpuFrequency)
    throttling: CpuThrottling = field(default_factory=CpuThrottling)
    used_by: Counter[str] = field(default_factory=Counter)
    """CPU seconds of other programs during the rounds, by program name."""

    def __post_init__(self) -> None:
        self._stopped_s: dict[str, float] = {}
        """Seconds for which each worker was stopped during the running turn, by label."""
        self._late_s: dict[int, float] = {}
        """Seconds in which the main process did not run, by round."""
        self._round = 0
        self._mhz: list[float] = []
        """Readings of the CPU's frequency during the running turn."""
        self._unread_s = 0.0
        """Seconds since the previous reading of the frequency."""
        self._round_mhz: dict[int, list[float]] = {}
        """Median frequency of each turn, by round."""
        self._throttled_s: dict[int, float] = {}
        """Seconds for which a container's CPU limit stopped quantchat's processes, by round."""
        self._others: dict[int, tuple[str, float]] | None = None
        """Name and CPU seconds of each process of other programs, by pid, at the latest call of
        `between_rounds`; None before the first call."""

    # ------------------------------------------------------------ each turn

    def running(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Check every `CHECK_S` within this context."""
        return checking(CHECK_S, lambda now, passed: self.check(passed))

    def check(self, seconds: float) -> None:
        """Check for stopped workers and read the CPU's frequency.

        `seconds` is the time since the previous check; a late check means that this process did not
        run.
        """
        if seconds > CHECK_S + LATE_S:
            self._late_s[self._round] = self._late_s.get(self._round, 0.0) + seconds
        self._unread_s += seconds
        if self._unread_s >= FREQUENCY_EVERY_S and self._on_cpu:
            self._unread_s = 0.0
            if (mhz := self.frequency.mhz()) is not None:
                self._mhz.append(mhz)
        labels = {side.pid: side.label for side in self.sides if side.pid is not None}
        for pid in stopped_processes(labels):
            label = labels[pid]
            self._stopped_s[label] = self._stopped_s.get(label, 0.0) + seconds

    @contextlib.contextmanager
    def turn(self, round_number: int) -> Iterator[list[str]]:
        """Watch a turn within this context; at its end the yielded list has the disturbances."""
        found: list[str] = []
        self._stopped_s.clear()
        self._mhz.clear()
        self._round = round_number
        asleep, throttled, before = suspended_s(), self.throttling.seconds(), self.clock.read()
        yield found
        after, asleep = self.clock.read(), suspended_s() - asleep
        seconds = after.at_s - before.at_s
        by_others = (after.busy_s - before.busy_s) - (after.own_s - before.own_s)
        self.loads.setdefault(round_number, ForeignCpuLoad()).add(seconds, by_others)
        throttled_s = self.throttling.seconds() - throttled
        self._throttled_s[round_number] = self._throttled_s.get(round_number, 0.0) + throttled_s
        if asleep > LEAST_SUSPENDED_S:
            found.append(f"the machine was suspended for {asleep:.1f} s")
        found += [
            f"{label}: its worker was stopped for about {for_s:.1f} s"
            for label, for_s in self._stopped_s.items()
        ]
        found += self._frequency_change()

    def _frequency_change(self) -> list[str]:
        """Return a line if the frequency changed from the first half of the turn to the second."""
        if len(self._mhz) < LEAST_READINGS:
            return []
        half = len(self._mhz) // 2
        before, after = median(self._mhz[:half]), median(self._mhz[-half:])
        if _differ(before, after):
            return [f"the processor's frequency changed from {before:.0f} to {after:.0f} MHz"]
        self._round_mhz.setdefault(self._round, []).append(median(self._mhz))
        return []

    @property
    def _on_cpu(self) -> bool:
        """Whether a side computes on the processor, as far as is known."""
        return any(side.ledger and side.ledger.device == "cpu" for side in self.sides)

    def between_rounds(self) -> None:
        """Record the CPU time of other programs. Slow, so call it only between turns."""
        now = self.clock.others()
        if self._others is not None:
            self.used_by.update(busiest(self._others, now))
        self._others = now

    # ------------------------------------------------------------ result

    @property
    def flags(self) -> list[str]:
        """Warnings: main process did not run, load of other programs, CPU limit, frequency."""
        late = {number: for_s for number, for_s in sorted(self._late_s.items()) if number}
        lines = []
        if late:
            rounds = ", ".join(map(str, late))
            lines.append(
                f"round {rounds}: this program did not run for {sum(late.values()):.1f} s in all: "
                "the machine was overloaded, or frozen"
            )
        return lines + self._by_others() + self._by_limit() + self._by_frequency()

    def _by_limit(self) -> list[str]:
        seconds = {
            number: for_s
            for number, for_s in sorted(self._throttled_s.items())
            if number and for_s > MOST_THROTTLED * self.loads[number].seconds
        }
        if not seconds:
            return []
        return [
            f"processor: the CPU limit of the container stopped our processes for "
            f"{sum(seconds.values()):.1f} s in round {', '.join(map(str, seconds))}"
        ]

    def _by_frequency(self) -> list[str]:
        rounds = {n: median(found) for n, found in sorted(self._round_mhz.items()) if n}
        if not rounds or not _differ(min(rounds.values()), max(rounds.values())):
            return []
        low, high = (pick(rounds, key=lambda n: rounds[n]) for pick in (min, max))
        return [
            f"processor: frequency between {rounds[low]:.0f} MHz (round {low}) and "
            f"{rounds[high]:.0f} MHz (round {high})"
        ]

    def _by_others(self) -> list[str]:
        sides = list(self.sides)
        devices = [side.ledger.device if side.ledger else "" for side in sides]
        if EXTERNAL_SERVER in devices:  # a server on this machine would count as another program
            return []
        beside_gpu = all(device.startswith("cuda") for device in devices)
        most = MOST_BY_OTHERS_BESIDE_GPU if beside_gpu else MOST_BY_OTHERS
        cores = {
            number: load.cores
            for number, load in sorted(self.loads.items())
            if number and load.cores is not None and load.cores > most * self.clock.cores
        }
        if not cores:
            return []
        values = [f"{value:.1f}" for value in sorted(cores.values()) if value is not None]
        taken = values[0] if values[0] == values[-1] else f"{values[0]} to {values[-1]}"
        named = [name for name, seconds in self.used_by.most_common(MOST_NAMED) if seconds > 0]
        return [
            f"processor: other programs took {taken} of {self.clock.cores} cores in round "
            f"{', '.join(map(str, cores))}" + (f" (most: {', '.join(named)})" if named else "")
        ]


def _differ(one: float, other: float) -> bool:
    """Return whether two frequencies differ by more than `MOST_FREQUENCY_CHANGE`."""
    return max(one, other) > min(one, other) * (1 + MOST_FREQUENCY_CHANGE)
