"""Press random keys, click and resize on quantchat's screens, and report exceptions.

    python benchmarks/random_keys.py                # 20,000 inputs; the first session has seed 0
    python benchmarks/random_keys.py --count 2000 --first 7

The workers are imitations that follow a script; no model is loaded. The exit status is 1 if an
exception was raised; the seed and the last keys of each such session are printed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from quantchat.app import terminal
from quantchat.session import live_variant

terminal.configure_textual()  # before anything imports Textual

from fakes.random_keys import on_the_comparison, on_the_start  # noqa: E402

SESSION = 400
"""Number of inputs after which a new session begins, with the next seed."""


async def main(count: int, first: int) -> int:
    """Send `count` inputs; the first session has seed `first`. Return the exit status."""
    live_variant.SILENT_S = live_variant.STUCK_S = 3600.0  # scripted workers may be silent for long
    pressed, failed = 0, 0
    seen: Counter[str] = Counter()
    for number in range(-(-count // SESSION)):
        begin = on_the_start if number % 4 == 3 else on_the_comparison
        with tempfile.TemporaryDirectory() as folder:
            for name in ("CONFIG", "CACHE", "SNAPSHOTS", "LOGS"):
                os.environ[f"QUANTCHAT_{name}"] = str(Path(folder, name.lower()))
            keys = min(SESSION, count - pressed)
            try:
                seen += await begin(Path(folder), first + number, keys)
            except Exception as error:  # noqa: BLE001 - this benchmark looks for any exception
                failed += 1
                told = f"{error.__context__ or ''}\n{type(error).__name__}: {error}"
                print(f"seed {first + number}, {begin.__name__}: {told}", flush=True)
            pressed += keys
    print(f"{pressed} keys, clicks and sizes in {number + 1} sessions: {failed} failed")
    print("bursts of input, by screen:", dict(seen.most_common()))
    return 1 if failed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0)
    given = parser.parse_args()
    sys.exit(asyncio.run(main(given.count, given.first)))
