"""End quantchat or one of its workers at a random moment, and look for what is left behind.

`python benchmarks/kills.py` starts the demo in a pseudo-terminal again and again, types prompts and
saves snapshots once a side is ready. At a random moment it kills the program or a worker, hangs up,
closes the terminal, or quits. Some runs start with an empty cache, so that downloads and making of
checkpoints are hit too, and some without the quantized checkpoint, so that quantizing is. Then all
started processes must be gone within 2 s, every snapshot must be whole, no partial checkpoint may
be taken for a whole one, and, where a signal left time for it, the answers must be in a snapshot.
It writes `benchmarks/results/kills.json`; the exit status is 1 if anything was left or lost.
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

import psutil

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from fakes.terminal import Terminal  # noqa: E402 - the tests' pseudo-terminal
from quantchat import paths  # noqa: E402
from quantchat.checkpoints.cache import CheckpointCache  # noqa: E402
from quantchat.errors import UserError  # noqa: E402
from quantchat.snapshot import recovered, store  # noqa: E402

RESULTS = HERE / "results" / "kills.json"
WAYS = ("SIGKILL", "SIGTERM", "SIGHUP", "terminal closed", "worker SIGKILL", "Ctrl+Q")
IN_GOOD_ORDER = ("SIGTERM", "SIGHUP", "terminal closed")
"""Ends that leave time to save the answers that nobody saved."""
MARK = "QUANTCHAT_KILLS"
GOAL_S = 2.0
PATIENCE_S = 15.0
STARTING_S = 12.0
"""Most runs end within this time, in s, while variants are fetched, built, quantized or loaded."""
CHATTING_S = 4.0
"""The other runs end within this time, in s, after a side is ready, while they answer and save."""
QUIT = "\x11\x11"
READY, ANSWERING = "● ready", "▶ answering"


def process_tree(process: psutil.Process) -> list[psutil.Process]:
    """Return `process` and its descendants, as far as they are alive."""
    with contextlib.suppress(psutil.Error):
        return [process, *process.children(recursive=True)]
    return []


def marked(mark: str) -> list[psutil.Process]:
    """Return the processes that inherited `mark`, whatever their parent is now."""
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


def without_quantized(cache: Path) -> None:
    """Fill `cache` with the user's checkpoints, except for the GPTQ ones."""
    for made in (paths.cache_dir() / "checkpoints").iterdir():
        if "-gptq-" in made.name or made.name.startswith("."):
            continue
        place = paths.private(cache / "checkpoints" / made.name)
        for file in made.rglob("*"):
            if file.is_file():
                linked = paths.private((place / file.relative_to(made)).parent) / file.name
                linked.hardlink_to(file)


def use(terminal: Terminal, until_s: float, chatting: bool) -> bool:
    """Read the screen, or type and save, until the given time; return whether an answer ran."""
    asked, answered = 1, False
    while time.monotonic() < until_s and terminal.process.poll() is None:
        terminal.read()
        answered = answered or (chatting and ANSWERING in terminal.text)
        if chatting:
            with contextlib.suppress(OSError):
                terminal.type("Count to twenty.\r" if asked % 4 == 0 else "\x13")
            asked += 1
            next_s = min(until_s, time.monotonic() + 0.2)
            while time.monotonic() < next_s:
                terminal.read()
    return answered


def end(terminal: Terminal, way: str, lot: random.Random) -> None:
    """End the program in the given way; after a worker was killed, ask the program to quit."""
    program = psutil.Process(terminal.process.pid)
    if way == "worker SIGKILL":
        workers = [p for p in process_tree(program)[1:] if os.getpgid(p.pid) == p.pid]
        if workers:
            lot.choice(workers).kill()
        terminal.type(QUIT)
    elif way == "terminal closed":
        terminal.hang_up()
    elif way == "Ctrl+Q":
        terminal.type(QUIT)
    else:
        program.send_signal(signal.Signals[way])


def wait_until_gone(
    terminal: Terminal, processes: list[psutil.Process], mark: str, press: str
) -> float:
    """Return the seconds until all its processes have ended; `PATIENCE_S` if they never do.

    `press` is typed again each second, as a user does: before the screen starts, keys are lost.
    """
    began = time.monotonic()
    pressed = 0
    while (took := time.monotonic() - began) < PATIENCE_S:
        if press and took > pressed + 1:
            pressed += 1
            with contextlib.suppress(OSError):
                terminal.type(press)
        with contextlib.suppress(OSError):
            terminal.read(0.02)
        terminal.process.poll()
        if not any(map(alive, processes)) and not marked(mark):
            return took
    return PATIENCE_S


def broken_files(folder: Path, cache: Path | None) -> Iterator[str]:
    """Yield a line for each snapshot or checkpoint that is incomplete."""
    snapshots = folder / "snapshots"
    for file in snapshots.iterdir() if snapshots.is_dir() else ():
        if file.suffix == ".json" and not file.name.startswith("."):
            try:
                store.load(file)
            except UserError as error:
                yield f"snapshot: {error}"
    if cache is not None and (cache / "checkpoints").is_dir():
        checkpoints = CheckpointCache(cache / "checkpoints")
        for made in checkpoints.folder.iterdir():
            if not made.name.startswith(".") and checkpoints.find(made.name) is None:
                yield f"checkpoint: {made.name}"


def one(number: int, lot: random.Random) -> dict[str, object]:
    """Run the program once, end it, and return what was left behind."""
    mark, way = uuid.uuid4().hex, WAYS[number % len(WAYS)]
    doing = lot.choices(("chatting", "starting", "fetching", "quantizing"), (40, 30, 15, 15))[0]
    chatting, fresh = doing == "chatting", doing in ("fetching", "quantizing")
    after_s = lot.uniform(0.05, CHATTING_S if chatting else STARTING_S)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        cache = folder / "cache" if fresh else None
        if cache and doing == "quantizing":
            without_quantized(cache)
        terminal = Terminal(
            [sys.executable, "-m", "quantchat", "demo", "--snapshots", str(folder / "snapshots")],
            cwd=folder,
            env={MARK: mark, "QUANTCHAT_LOGS": str(folder / "logs")}
            | ({"QUANTCHAT_CACHE": str(cache)} if cache else {}),
        )
        try:
            if chatting:
                terminal.wait_for_text(READY, most_s=600)  # the other side may still load
                terminal.type("Count to twenty.\r")
            answered = use(terminal, time.monotonic() + after_s, chatting)
            processes = process_tree(psutil.Process(terminal.process.pid))
            end(terminal, way, lot)
            press = QUIT if way == "Ctrl+Q" else ""
            gone_s = wait_until_gone(terminal, processes, mark, press)
            left = [p for p in {*processes, *marked(mark)} if alive(p)]
            broken = list(broken_files(folder, cache))
        finally:
            terminal.close()
        for process in left:
            process.kill()
        count = len(list((folder / "snapshots").glob("*.json")))
        kept = len(recovered.waiting(folder / "snapshots"))
    return {
        "way": way,
        "while": doing,
        "after_s": round(after_s, 2),
        "processes": len(processes),
        "gone_s": round(gone_s, 2),
        "left": len(left),
        "snapshots": count,
        "recovered": kept,
        "lost": int(answered and way in IN_GOOD_ORDER and not count),
        "broken": broken,
    }


def main() -> int:
    """Run and end the program, write the result; 0 if nothing was left or lost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=int, default=120)
    parser.add_argument("--seed", type=int, default=20261124)
    given = parser.parse_args()
    lot = random.Random(given.seed)
    runs = []
    for number in range(given.times):
        runs.append(one(number, lot))
        print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
    slowest = max(run["gone_s"] for run in runs)  # type: ignore[type-var]
    summary = {
        "ended": dict(Counter(run["way"] for run in runs)),
        "processes_that_ran": sum(run["processes"] for run in runs),  # type: ignore[misc]
        "processes_left": sum(run["left"] for run in runs),  # type: ignore[misc]
        "snapshots_written": sum(run["snapshots"] for run in runs),  # type: ignore[misc]
        "conversations_recovered": sum(run["recovered"] for run in runs),  # type: ignore[misc]
        "conversations_lost": sum(run["lost"] for run in runs),  # type: ignore[misc]
        "files_broken": sum(len(run["broken"]) for run in runs),  # type: ignore[misc,arg-type]
        "slowest_end_s": slowest,
        "within_2_s": sum(run["gone_s"] <= GOAL_S for run in runs),  # type: ignore[operator]
    }
    result = {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": f"python benchmarks/kills.py --times {given.times} --seed {given.seed}",
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "summary": summary,
        "runs": runs,
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(summary, indent=2))
    failures = ("processes_left", "files_broken", "conversations_lost")
    return 1 if any(summary[what] for what in failures) else 0


if __name__ == "__main__":
    sys.exit(main())
