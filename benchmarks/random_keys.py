"""Press random keys, click and resize on every screen: does anything raise an exception?

    python benchmarks/random_keys.py                # 20,000 inputs, from seed 0 on
    python benchmarks/random_keys.py --count 2000 --first 7

Workers are scripted, no model is loaded. The exit status is 1 if something raised; the seed and the
last keys of each such session are printed.
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
"""Number of keys after which the program is restarted."""


async def main(count: int, first: int) -> int:
    """Press `count` keys in sessions that begin with seed `first`; return the exit status."""
    live_variant.SILENT_S = live_variant.STUCK_S = 3600.0  # scripted workers give no sign of life
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
    print(f"{pressed} keys, clicks and sizes in {number + 1} sessions: {failed} raised something")
    print("screens, by the bursts that met them:", dict(seen.most_common()))
    return 1 if failed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0)
    given = parser.parse_args()
    sys.exit(asyncio.run(main(given.count, given.first)))
