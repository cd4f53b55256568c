"""End quantchat or one of its workers at a random moment, and look for what is left behind.

`python benchmarks/kills.py` starts the demo, a small pair, `run` and `quantize` in a
pseudo-terminal again and again, and ends each at a random moment in each of the ways of
`kill_ways.py`. Some runs of the demo start with an empty cache, to hit downloads and builds of
checkpoints, and some without the quantized checkpoint, to hit quantizing.

15 s after the end, no process may be left. (The result also counts the runs in which all were gone
after 2 s.) Every snapshot must be complete, no partial checkpoint may be taken for a complete one,
and no temporary file may be left after the next start. If the program had time to save, its answers
must be in a snapshot; if they could not be saved, the terminal must say so.

The program writes `benchmarks/results/kills.json`; with `--add` it adds its runs to those in the
file. The exit status is 1 if anything was left or lost. It mounts file systems (a full one, and one
that hangs), so only root can run it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import signal
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from kill_ways import WAYS, Session  # noqa: E402 - it uses the tests' pseudo-terminal

from quantchat.checkpoints.cache import CheckpointCache  # noqa: E402
from quantchat.errors import UserError  # noqa: E402
from quantchat.host import scratch  # noqa: E402
from quantchat.snapshot import recovered, store  # noqa: E402

RESULTS = HERE / "results" / "kills.json"
MARK = "QUANTCHAT_KILLS"
GOAL_S = 2.0
"""Time in which all processes of a run should be gone; the summary counts such runs."""
PATIENCE_S = 15.0
"""Time after which processes that still run count as left, and are killed."""
LOST = ("processes_left", "files_broken", "temporary_files_left", "results_lost")
"""Counts that have to be 0."""


def marked(mark: str) -> list[psutil.Process]:
    """Return the processes with `mark` in their environment, even if their parent has ended."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == mark and alive(process):
                found.append(process)
    return found


def alive(process: psutil.Process) -> bool:
    """Return whether the process runs; a zombie does not count, because it uses no resources."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def process_tree(pid: int) -> list[psutil.Process]:
    """Return the process `pid` and its descendants, as far as they are alive."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def wait_until_gone(
    session: Session, processes: list[psutil.Process], mark: str, press: str
) -> float:
    """Return the seconds until all processes have ended, at most `PATIENCE_S`.

    Meanwhile the keys `press`, if any, are pressed each second.
    """
    began = time.monotonic()
    pressed = 0
    while (took := time.monotonic() - began) < PATIENCE_S:
        if press and took > pressed + 1:
            pressed += 1
            session.type(press)
        with contextlib.suppress(OSError):
            session.terminal.read(0.02)
        session.terminal.process.poll()
        if not any(map(alive, processes)) and not marked(mark):
            return took
    return PATIENCE_S


def broken_files(session: Session, *, tidied: bool) -> Iterator[str]:
    """Yield a line for each snapshot or checkpoint that is incomplete.

    With `tidied`, also yield one for each partial build that is left.
    """
    for file in session.snapshots.iterdir():
        if file.suffix == ".json" and not file.name.startswith("."):
            try:
                store.load(file)
            except UserError as error:
                yield f"snapshot: {error}"
    if session.cache is not None and (session.cache / "checkpoints").is_dir():
        checkpoints = CheckpointCache(session.cache / "checkpoints")
        for made in checkpoints.folder.iterdir():
            if not made.name.startswith(".") and checkpoints.find(made.name) is None:
                yield f"checkpoint: {made.name}"
        for part in (checkpoints.folder / ".parts").iterdir() if tidied else ():
            yield f"partial build: {part.name}"


def temporary_files(folder: Path) -> list[str]:
    """Clean the temporary folder `folder` as the next start does; return what is left in it."""
    tempfile.tempdir = str(folder)
    try:
        scratch.sweep()
    finally:
        tempfile.tempdir = None
    return sorted(path.name for path in folder.iterdir())


def one(name: str, lot: random.Random) -> dict[str, Any]:
    """Run a program once, end it in the way `name`, and return what was left behind."""
    mark, way = uuid.uuid4().hex, WAYS[name]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        session = Session(Path(folder), lot)
        for own in ("snapshots", "tmp", "logs"):
            (session.folder / own).mkdir(mode=0o700)
        began = time.monotonic()
        try:
            with session.surroundings:
                way.program(session, {MARK: mark})
                after_s = time.monotonic() - began
                processes = process_tree(session.terminal.process.pid)
                way.end(session)
                gone_s = wait_until_gone(session, processes, mark, way.press)
                left = [p for p in {*processes, *marked(mark)} if alive(p)]
                for process in left:
                    process.kill()
            said = session.terminal.received.decode(errors="replace")
        finally:
            session.terminal.close()
        broken = list(broken_files(session, tidied=way.tidies))
        count = len(list(session.snapshots.glob("*.json")))
        kept = len(recovered.recovered_snapshots(session.snapshots))
        temporary = temporary_files(session.folder / "tmp")
    unsaved = way.saves and session.answered and not count
    return {
        "way": name,
        "while": session.doing,
        "after_s": round(after_s, 2),
        "processes": len(processes),
        "gone_s": round(gone_s, 2),
        "left": len(left),
        "snapshots": count,
        "recovered": kept,
        "lost": int(unsaved or way.says not in said),
        "broken": broken,
        "temporary": temporary,
    }


def summary_of(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the counts over all runs."""
    hung = [run["gone_s"] for run in runs if WAYS[run["way"]].hung]
    usual = [run["gone_s"] for run in runs if not WAYS[run["way"]].hung]
    return {
        "ended": dict(Counter(run["way"] for run in runs)),
        "processes_that_ran": sum(run["processes"] for run in runs),
        "processes_left": sum(run["left"] for run in runs),
        "snapshots_written": sum(run["snapshots"] for run in runs),
        "conversations_recovered": sum(run["recovered"] for run in runs),
        "results_lost": sum(run["lost"] for run in runs),
        "files_broken": sum(len(run["broken"]) for run in runs),
        "temporary_files_left": sum(len(run["temporary"]) for run in runs),
        "slowest_end_s": max(usual, default=0.0),
        "slowest_end_on_a_hung_share_s": max(hung, default=0.0),
        "within_2_s": sum(seconds <= GOAL_S for seconds in usual),
    }


def write(command: str, summary: dict[str, Any], runs: list[dict[str, Any]]) -> None:
    """Write the result file."""
    result = {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": command,
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "summary": summary,
        "runs": runs,
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    """Run and end the programs, write the result; 0 if nothing was left or lost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--each", type=int, default=6, help="how often each way is tried")
    parser.add_argument("--seed", type=int, default=20261130)
    parser.add_argument("--only", nargs="*", help="ways to try; then nothing is saved")
    parser.add_argument("--add", action="store_true", help="keep the saved runs too")
    given = parser.parse_args()
    # Under nohup or a shell's `&`, this process may ignore these signals, and the programs that it
    # starts would inherit that.
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    saved = json.loads(RESULTS.read_text(encoding="utf-8")) if given.add else {}
    lot = random.Random(given.seed)
    runs = list(saved.get("runs", []))
    for each in range(1, given.each + 1):
        for name in given.only or WAYS:
            runs.append(one(name, lot))
            print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
        summary = summary_of(runs)
        if not given.only:  # after each round: the next one may be interrupted
            command = f"python benchmarks/kills.py --each {each} --seed {given.seed}"
            if given.add:
                command = f"{saved['command']}; {command} --add"
            write(command, summary, runs)
    print(json.dumps(summary, indent=2))
    return 1 if any(summary[what] for what in LOST) else 0


if __name__ == "__main__":
    sys.exit(main())
