"""Measure how much the screen, its panels and its sampler slow decoding down.

`python benchmarks/watching.py` runs the demo on the real screen in a pseudo-terminal, on a machine
with two cores. One variant decodes at a time, with one thread, so that one core is free. While an
answer is decoded, the process of the screen runs in some periods ("windows") of one second, and is
suspended (SIGSTOP) in others, in the order watched, alone, alone, watched. So neither a growing
context nor a machine that becomes slower favours one of the two. Windows in which other programs
ran do not count, because no core was free then. When each token was decoded is read from the saved
snapshot (by the worker's clock).

For each group of four windows, the throughput while watched is divided by the throughput alone. The
mean ratio and its interval are saved in `benchmarks/results/watching.json`; `--table` prints the
documentation's table. The exit status is 1 if 1 % or more of the throughput is lost.

Both throughputs include what the worker does to be measured: it reads its clock and writes each
token into a pipe, which buffers tokens while the screen does not read.
"""

from __future__ import annotations

import argparse
import functools
import math
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from driving import circumstances
from session import ENTER, NEW_CHAT, SAVE, Session, keep, kept

from quantchat.snapshot import store
from quantchat.snapshot.schema import AnswerRecord, TurnRecord
from quantchat.statistics.intervals import Pair, ratio_of

GOAL_PERCENT = 1.0
ORDER = (True, False, False, True)
"""For each of four windows, whether it is watched: whether the screen's process runs."""
WINDOW_S = 1.0
SETTLING_S = 0.2
"""Seconds at the start of a window that do not count: the screen first draws what it missed."""
MOST_OTHERS = 0.1
"""Largest share of a core for other programs in a window that counts."""
LEAST_TOKENS = 10
"""Fewest tokens in a window that counts."""
TOKENS = 768
PROMPT = "Tell a long story of a journey, with all that was seen on the way."
MOST_S = 600


class Window(NamedTuple):
    """A period of time in ns, by the monotonic clock that all processes of the machine share."""

    watched: bool
    from_ns: int
    to_ns: int
    others: float
    """Share of a core that was busy with neither the screen nor a worker."""


def show(folder: Path) -> int:
    """Run the demo on this process's terminal, with long answers; return the exit status."""
    # quantchat then decodes with one thread, which leaves the other core free.
    os.cpu_count = lambda: 1
    import quantchat.session.comparison as asks
    from quantchat.app import run
    from quantchat.profile import library, load
    from quantchat.session.requests import chat_request

    asks.chat_request = functools.partial(chat_request, ignore_eos=True)  # type: ignore[attr-defined]
    demo = load.load(library.find("demo"))
    changes = {
        "generation": demo.generation.model_copy(update={"max_new_tokens": TOKENS}),
        "run": demo.run.model_copy(update={"order": "in-turn"}),
    }
    return run(demo.model_copy(update=changes), snapshots=folder)


def others_cpu_s(session: Session) -> float:
    """Return the machine's busy processor seconds without those of the session."""
    times = psutil.cpu_times()
    busy = sum(times) - times.idle - times.iowait - times.guest - times.guest_nice
    return float(busy) - session.cpu_s() - session.started_cpu_s()


def wait_until_idle(session: Session) -> None:
    """Wait until no worker computes. Raises TimeoutError."""
    deadline, before = time.monotonic() + MOST_S, -math.inf
    while (now := session.started_cpu_s()) - before > 0.2:
        if time.monotonic() > deadline:
            raise TimeoutError("the workers are never idle")
        before = now
        time.sleep(2)


def windows_of(session: Session) -> Iterator[Window]:
    """Stop and continue the screen, window by window, until nothing is decoded any more."""
    while True:
        decoded_s = session.started_cpu_s()
        for watched in ORDER:
            os.kill(session.process.pid, signal.SIGCONT if watched else signal.SIGSTOP)
            began, before_s = time.perf_counter_ns(), others_cpu_s(session)
            time.sleep(WINDOW_S)
            others = (others_cpu_s(session) - before_s) / WINDOW_S
            yield Window(watched, began + int(SETTLING_S * 1e9), time.perf_counter_ns(), others)
        if session.started_cpu_s() - decoded_s < WINDOW_S:
            return


def turn(session: Session, folder: Path) -> tuple[TurnRecord, list[Window], float]:
    """Let one prompt be answered; return the saved turn, the windows, and the cost of the screen.

    The cost is the share of a core that the screen's process takes while watched.
    """
    session.type(PROMPT + ENTER)
    cpu_s, windows = session.cpu_s(), list(windows_of(session))
    watched_s = WINDOW_S * sum(window.watched for window in windows)
    share = (session.cpu_s() - cpu_s) / watched_s
    wait_until_idle(session)
    before = set(folder.glob("*.json"))
    session.type(SAVE)
    deadline = time.monotonic() + MOST_S
    while not (new := set(folder.glob("*.json")) - before):
        if time.monotonic() > deadline:
            raise TimeoutError("no snapshot was saved")
        time.sleep(0.2)
    session.type(NEW_CHAT)
    time.sleep(1)
    return store.load(new.pop()).turns[-1], windows, share


def throughput(answer: AnswerRecord, window: Window) -> float | None:
    """Return the decode throughput in `window`, in tok/s; None if the window does not count."""
    times = answer.times_ns
    if window.others > MOST_OTHERS:
        return None
    if not times or not times[0] < window.from_ns < window.to_ns < times[-1]:
        return None
    inside = [at for at in times if window.from_ns <= at <= window.to_ns]
    if len(inside) < LEAST_TOKENS:
        return None
    return (len(inside) - 1) * 1e9 / (inside[-1] - inside[0])


def pairs(number: int, answer: AnswerRecord, windows: list[Window]) -> Iterator[Pair]:
    """Yield the throughputs alone and watched of each group of four windows in answer `number`."""
    for first in range(0, len(windows), len(ORDER)):
        found = [(w.watched, throughput(answer, w)) for w in windows[first : first + len(ORDER)]]
        rates: dict[bool, list[float]] = {True: [], False: []}
        for watched, rate in found:
            if rate is not None:
                rates[watched].append(rate)
        if len(rates[True]) == len(rates[False]) == len(ORDER) // 2:
            alone, seen = (math.sqrt(math.prod(rates[one])) for one in (False, True))
            yield Pair((number, answer.variant), number, alone, seen)


def measure(turns: int) -> dict[str, Any]:
    """Let `turns` prompts be answered; return throughputs and ratios by variant."""
    found: dict[str, list[Pair]] = {}
    shares, counted, disturbed = [], 0, 0
    with tempfile.TemporaryDirectory(prefix="quantchat-") as name:
        folder = Path(name)
        session = Session([sys.executable, __file__, "--screen", name])
        try:
            session.wait_for("● ready", times=2, most_s=MOST_S)
            wait_until_idle(session)
            for number in range(1, turns + 1):
                record, windows, share = turn(session, folder)
                shares.append(share)
                disturbed += sum(window.others > MOST_OTHERS for window in windows)
                for answer in record.answers:
                    counted += len(answer.ids)
                    found.setdefault(answer.variant, []).extend(pairs(number, answer, windows))
        finally:
            session.close()
    every = [pair for some in found.values() for pair in some]
    ratios = {label: ratio_of(some) for label, some in {**found, "both": every}.items()}
    return {
        "turns": turns,
        "tokens": counted,
        "screen_share_of_a_core": round(sum(shares) / len(shares), 4),
        "tok_s_alone": {
            label: round(math.exp(sum(math.log(p.a) for p in some) / len(some)), 2)
            for label, some in found.items()
            if some
        },
        "windows_disturbed": disturbed,
        "watched_to_alone": {label: asdict(one) for label, one in ratios.items() if one},
    }


def table(result: dict[str, Any]) -> list[str]:
    """Return the lost throughput as Markdown."""
    lines = [
        "| variant | tok/s without the screen | lost with the screen (95 % CI) | cycles |",
        "| --- | --- | --- | --- |",
    ]
    for label, ratio in result["watched_to_alone"].items():
        alone = result["tok_s_alone"].get(label)
        lost, within = (1 - ratio["value"]) * 100, ""
        if ratio["low"] is not None:
            least, most = ((1 - ratio[bound]) * 100 for bound in ("high", "low"))
            within = f" ({least:.2f} to {most:.2f})"
        lines.append(
            f"| {label} | {'' if alone is None else f'{alone:.1f}'} "
            f"| {lost:.2f} %{within} | {ratio['pairs']} |"
        )
    return lines


def main() -> int:
    """Measure and write the result, and print its table; 1 if the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--screen", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--table", action="store_true", help="print the saved result")
    asked = parser.parse_args()
    if asked.screen:
        return show(asked.screen)
    if not asked.table:
        about = circumstances(f"watching.py --turns {asked.turns}")
        keep("watching", {**about, **measure(asked.turns)})
    result = kept("watching")
    print("\n".join(table(result)))
    return int(1 - result["watched_to_alone"]["both"]["value"] >= GOAL_PERCENT / 100)


if __name__ == "__main__":
    sys.exit(main())
