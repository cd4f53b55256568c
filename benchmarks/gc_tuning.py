"""Measure what `quantchat.app.gc_tuning` gains: fewer full collections and an earlier first frame.

`python benchmarks/gc_tuning.py` streams code at 1000 tok/s on each side into the real screen, once
without and once with the module, and prints the processor time of each full garbage collection
during the stream. Then it starts `quantchat` alternately without and with the module, and prints
the median times to the first frame. It writes no file.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import statistics
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import session
from session import SYNTHETIC, Session, Synthetic
from startup import QUANTCHAT

STREAM_S = 28.0
FRAMES = 15
"""Number of starts with the module, and of starts without it."""
_LOG, _OFF = "GC_BENCHMARK_LOG", "GC_BENCHMARK_OFF"


def collections_ms(*, tuned: bool) -> list[float]:
    """Let both sides stream for `STREAM_S` s; return the CPU time in ms of each full collection."""
    log = Path(tempfile.mkdtemp(prefix="quantchat-")) / "collections"
    with mock.patch.object(session, "SYNTHETIC", (sys.executable, __file__, "as", SYNTHETIC[1])):
        running = Synthetic(env={_LOG: str(log), _OFF: "" if tuned else "1"})
    time.sleep(1)
    began = time.monotonic()
    running.ask("code", 1000, 30_000)
    time.sleep(STREAM_S)
    ended = time.monotonic()
    running.close()
    lines = log.read_text().splitlines() if log.exists() else []
    return [took for at, took in map(json.loads, lines) if began < at < ended]


def first_frame_s(*, tuned: bool) -> float:
    """Return the seconds from the start of `quantchat` to its first frame."""
    began = time.perf_counter()
    command = (sys.executable, __file__, "as", "-m", *QUANTCHAT[2:])
    running = Session(command, env={_OFF: "" if tuned else "1"})
    try:
        return running.wait_for("Profiles") - began
    finally:
        running.close()


def run_as(words: list[str]) -> None:
    """Run the Python program `words` (the arguments after `python`) in this process.

    The environment variable `_LOG` names the file to which full collections are logged. If `_OFF`
    is set, gc_tuning has no effect.
    """
    if os.environ.get(_OFF):
        from quantchat.app import gc_tuning

        gc_tuning.start = lambda: None
        gc.disable = lambda: None
    if log := os.environ.get(_LOG):
        began = 0.0

        def note(phase: str, about: dict[str, int]) -> None:
            nonlocal began
            if about["generation"] == 2 and phase == "start":
                began = time.thread_time()
            elif about["generation"] == 2:
                took_ms = round((time.thread_time() - began) * 1e3, 1)
                with Path(log).open("a") as file:
                    file.write(json.dumps([time.monotonic(), took_ms]) + "\n")

        gc.callbacks.append(note)
    module = words[0] == "-m"
    sys.argv = words[module:]
    sys.path[0] = "" if module else str(Path(words[0]).parent)
    (runpy.run_module if module else runpy.run_path)(sys.argv[0], run_name="__main__")


def main() -> None:
    """Measure and print the results."""
    for tuned in (False, True):
        took = collections_ms(tuned=tuned)
        name = "with" if tuned else "without"
        print(f"{name} gc_tuning: {len(took)} full collections in {STREAM_S:.0f} s, ms: {took}")
    pairs = [(first_frame_s(tuned=False), first_frame_s(tuned=True)) for _ in range(FRAMES)]
    without, tuned_s = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median(tuned / plain for plain, tuned in pairs)
    print(f"first frame: {without:.2f} s without, {tuned_s:.2f} s with, ratio {ratio:.2f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["as"]:
        run_as(sys.argv[2:])
    else:
        main()
