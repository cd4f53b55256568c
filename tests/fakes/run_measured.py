"""Runs `quantchat run` in this process' terminal, over scripted workers that wait for a test.

Argument: a folder, into which the snapshot is saved. The second answer of the right side creates
the file `waits` there, and waits for the file `go`, or until it is stopped.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from pathlib import Path

import quantchat.session.comparison
from fakes.scripted_worker import Script, starter
from quantchat.cli import main
from quantchat.host.worker_process import Place, Worker
from quantchat.wire.messages import Generate

FOLDER = Path(sys.argv[1])
PROFILE = """
name = "Run"
variants = [
    { label = "A", engine = "transformers", model = "not/loaded" },
    { label = "B", engine = "transformers", model = "not/loaded" },
]
run = { rounds = 3, warmup = 0, prompts = ["Name a colour."] }
"""
scripts = {"A": Script(), "B": Script()}
asked = 0


def held(request: Generate) -> str:
    global asked
    asked += 1
    scripts["B"].holds_after = 0 if asked == 2 else None
    if asked == 2:
        (FOLDER / "waits").touch()
    return "Blue."


async def start(place: Place) -> Worker:
    scripts["B"].answer = held
    watching.append(asyncio.ensure_future(let_go()))
    return await starter(scripts, FOLDER)(place)


watching: list[asyncio.Task[None]] = []


async def let_go() -> None:
    while not (FOLDER / "go").exists():
        await asyncio.sleep(0.01)
    scripts["B"].gate.set()


quantchat.session.comparison.Comparison = functools.partial(  # type: ignore[misc,assignment]
    quantchat.session.comparison.Comparison, start=start
)
(FOLDER / "run.toml").write_text(PROFILE)
sys.exit(main(["run", str(FOLDER / "run.toml"), "--save", str(FOLDER / "saved")]))
