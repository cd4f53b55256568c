"""Let two variants chat for half an hour, and check that no process grows and no token is lost.

`python benchmarks/soak.py` runs two screens at once, each in its own pseudo-terminal: the demo with
its real variants, at the lowest priority, and one with imitated models that answer nearly all the
time. In each, a new chat begins after every five turns. Every ten seconds the benchmark reads the
resident memory, file descriptors and threads of every process. It writes
`benchmarks/results/soak.json`; the exit status is 1 if something grew or was lost.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import psutil
from driving import circumstances
from session import ENTER, NEW_CHAT, SAVE, Session, Synthetic, keep, kept

EVERY_S = 10.0
"""Time between two samples of each process."""
SETTLING = 1 / 4
"""Share of the time after which nothing may grow any more, because caches are filled by then."""
MOST_GROWTH = 0.02
"""Largest growth of the resident memory after settling, as a fraction: the median of the last third
compared with that of the first third."""
PROMPTS = (
    "Tell me of a lighthouse and its keeper.",
    "Explain how bread is baked, step by step.",
    "Write ten sentences about the sea.",
    "List the planets with one fact about each.",
    "What should one know before climbing a mountain?",
)
SYNTHETIC_ASKS = ("prose 60 2400", "code 60 2400", "table 60 2400", "cjk 60 2400", "emoji 60 2400")
SYNTHETIC_EVERY_S = 55.0
REAL_EVERY_S = 45.0
"""Time between two prompts. An answer takes less, even at the lowest priority; a prompt that is
typed during an answer would not be sent."""
TURNS = len(PROMPTS)
"""Number of turns in a chat, so that all chats are equally long and can be compared."""


class Talker:
    """Types a prompt into `session` every `every_s` s; starts a new chat after `TURNS` turns."""

    def __init__(self, session: Session, prompts: tuple[str, ...], every_s: float) -> None:
        self.session = session
        self.asked = 0
        self._prompts = itertools.cycle(prompts)
        self._every_s = every_s
        self._due = time.monotonic()

    def go_on(self) -> None:
        """Type the next prompt if it is due."""
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + self._every_s
        if self.asked and self.asked % TURNS == 0:
            self.session.type(SAVE)
            time.sleep(1)
            self.session.type(NEW_CHAT)
            time.sleep(1)
        self.session.type(next(self._prompts) + ENTER)
        self.asked += 1


def processes(session: Session) -> dict[str, psutil.Process]:
    """Return the screen's process and its workers, by name; watchdog processes are left out."""
    found = {"screen": session.ps}
    for child in session.ps.children():
        with contextlib.suppress(psutil.Error):
            if child.num_threads() > 1:  # unlike a watchdog, a worker has threads
                found[f"worker {len(found)}"] = child
    return found


def look(named: dict[str, psutil.Process], at_s: float) -> list[dict[str, Any]]:
    """Return one sample of each process."""
    samples = []
    for name, process in named.items():
        if not process.is_running():
            raise SystemExit(f"{name} is gone after {at_s:.0f} s")
        with process.oneshot():
            samples.append(
                {
                    "process": name,
                    "at_s": round(at_s, 1),
                    "resident_mb": round(process.memory_info().rss / 1e6, 2),
                    "descriptors": process.num_fds(),
                    "threads": process.num_threads(),
                }
            )
    return samples


def judged(samples: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Return the resources of one process, and whether they stayed flat after settling."""
    later = [one for one in samples if one["at_s"] >= seconds * SETTLING]
    memory = [one["resident_mb"] for one in later]
    times = [one["at_s"] for one in later]
    slope = statistics.linear_regression(times, memory).slope
    third = max(1, len(later) // 3)
    before, after = (statistics.median(part) for part in (memory[:third], memory[-third:]))
    steady = {
        name: (max(one[name] for one in later[:third]), max(one[name] for one in later[-third:]))
        for name in ("descriptors", "threads")
    }
    growth = after / before - 1
    return {
        "resident_mb": {"first": samples[0]["resident_mb"], "last": samples[-1]["resident_mb"]},
        "resident_mb_most": max(one["resident_mb"] for one in samples),
        "growth_percent": round(100 * growth, 2),
        "slope_mb_per_hour": round(slope * 3600, 2),
        "descriptors": {"first_third": steady["descriptors"][0], "last": steady["descriptors"][1]},
        "threads": {"first_third": steady["threads"][0], "last": steady["threads"][1]},
        "flat": growth <= MOST_GROWTH and all(last <= first for first, last in steady.values()),
    }


def said(folder: Path) -> dict[str, int]:
    """Return the number of tokens in the answers saved in `folder`, by variant."""
    tokens: dict[str, int] = defaultdict(int)
    for file in folder.glob("*.json"):
        for turn in json.loads(file.read_text())["turns"]:
            for answer in turn["answers"]:
                tokens[answer["variant"]] += len(answer["ids"])
    return dict(tokens)


def soak(seconds: float) -> dict[str, Any]:
    """Chat for `seconds` and return the result."""
    snapshots = Path(tempfile.mkdtemp(prefix="quantchat-"))
    program = [sys.executable, "-m", "quantchat", "demo", "--snapshots", str(snapshots)]
    demo = Session(["nice", "-n", "19", *program], env={"QUANTCHAT_LOGS": str(snapshots / "logs")})
    synthetic = Synthetic()
    try:
        demo.wait_for("● ready", times=2, most_s=1800)
        time.sleep(5)
        talkers = {
            "demo": Talker(demo, PROMPTS, REAL_EVERY_S),
            "synthetic": Talker(synthetic, SYNTHETIC_ASKS, SYNTHETIC_EVERY_S),
        }
        named = {
            f"{which}: {name}": process
            for which, talker in talkers.items()
            for name, process in processes(talker.session).items()
        }
        samples: list[dict[str, Any]] = []
        began = time.monotonic()
        while (gone := time.monotonic() - began) < seconds:
            for talker in talkers.values():
                talker.go_on()
            samples += look(named, gone)
            time.sleep(max(0.0, EVERY_S - (time.monotonic() - began - gone)))
        demo.type(SAVE)
        time.sleep(3)
        status = demo.end()
        answers = synthetic.report()
    finally:
        demo.close()
        synthetic.close()
    found = {
        name: judged([one for one in samples if one["process"] == name], seconds) for name in named
    }
    whole = [a for a in answers if a["whole"] and a["in_order"]]
    return {
        "seconds": round(seconds),
        "every_s": EVERY_S,
        "processes": found,
        "demo": {"exit_status": status, "asked": talkers["demo"].asked, "tokens": said(snapshots)},
        "synthetic": {
            "asked": talkers["synthetic"].asked,
            "answers": len(answers),
            "whole_and_in_order": len(whole),
            "tokens": sum(a["tokens"] for a in answers),
        },
        "nothing_grew": all(one["flat"] for one in found.values()),
        "nothing_lost": len(whole) == len(answers) > 0,
        "samples": samples,
    }


def table(result: dict[str, Any]) -> list[str]:
    """Return the saved result as Markdown, for docs/explanation/screen-benchmarks.md."""
    lines = [
        "| process | memory first, last, largest, MB | growth after 10 minutes"
        " | file descriptors | threads |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, one in result["processes"].items():
        memory = one["resident_mb"]
        held, ran = one["descriptors"], one["threads"]
        lines.append(
            f"| {name} | {memory['first']:.0f}, {memory['last']:.0f}, {one['resident_mb_most']:.0f}"
            f" | {one['growth_percent']} % | {held['first_third']} → {held['last']} "
            f"| {ran['first_third']} → {ran['last']} |"
        )
    return lines


def main() -> int:
    """Run the benchmark and write the result; 0 if nothing grew and nothing was lost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--table", action="store_true", help="print the saved result")
    asked = parser.parse_args()
    if asked.table:
        print("\n".join(table(kept("soak"))))
        return 0
    minutes = asked.minutes
    result = circumstances(f"soak.py --minutes {minutes:g}")
    result |= soak(minutes * 60)
    keep("soak", result, indent=None)
    print(json.dumps({**result, "samples": len(result["samples"])}, indent=2))
    return 0 if result["nothing_grew"] and result["nothing_lost"] else 1


if __name__ == "__main__":
    sys.exit(main())
