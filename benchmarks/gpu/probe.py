"""Answers single questions about the GPU, such as which attention backend torch chooses.

    python benchmarks/gpu/probe.py                       # run all, save in benchmarks/results
    python benchmarks/gpu/probe.py --seconds 65 machine attention
    python benchmarks/gpu/probe.py --table               # print the saved results as Markdown

A probe is a function in `questions.py` that answers one question. If it raises an exception, the
exception is its result. Its docstring says which result was expected before the first run on a GPU.
On a CPU the probes use tiny sizes, only to check that the program runs. After an illegal memory
access a process cannot use its GPU any more, so run the probes of one kernel by themselves. Each
result is saved at once. Another run on the same device replaces only the results of its own probes.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import shlex
import sys
import time
import traceback
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results"
PREFIX = "gpu-probe-"

Probe = Callable[[], dict[str, Any]]


class Kept:
    """The results on one device: a JSON file that is rewritten after each probe."""

    def __init__(self, folder: Path, device: str) -> None:
        slug = re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
        self._file = folder / f"{PREFIX}{slug}.json"
        self.body: dict[str, Any] = {"device": device, "probes": {}}
        if self._file.is_file():
            self.body = json.loads(self._file.read_text(encoding="utf-8"))

    def keep(self, name: str, result: dict[str, Any]) -> None:
        """Add the result of one probe, with date and command."""
        when = datetime.now(timezone.utc).isoformat(timespec="seconds")
        command = shlex.join(["python", "benchmarks/gpu/probe.py", *sys.argv[1:]])
        self.body["probes"][name] = {"date": when, "command": command, **result}
        self._file.parent.mkdir(parents=True, exist_ok=True)
        part = self._file.with_suffix(".part")
        part.write_text(json.dumps(self.body, indent=1, default=str) + "\n", encoding="utf-8")
        part.replace(self._file)


def ask(name: str, probe: Probe) -> dict[str, Any]:
    """Return the result of `probe`, or the exception that it raised."""
    began = time.monotonic()
    try:
        found = probe()
    except Exception as error:  # noqa: BLE001 - what a kernel raises is a result too
        what = f"{type(error).__name__}: {error}"[:600]
        found = {"error": what, "where": traceback.format_exc()[-700:]}
    return {"expected": _first_paragraph(probe), **found, "took_s": time.monotonic() - began}


def _first_paragraph(probe: Probe) -> str:
    return " ".join((probe.__doc__ or "").split())


def table(bodies: list[dict[str, Any]]) -> str:
    """Return a Markdown table for each device (file of results), with a row for each figure."""
    lines: list[str] = []
    for body in bodies:
        lines += [f"{body['device']}", "", "| probe | what | found |", "| --- | --- | --- |"]
        for name, result in body["probes"].items():
            own = {key: value for key, value in result.items() if key not in _ABOUT}
            lines += [f"| {name} | {what} | {value} |" for what, value in _flat(own)]
        lines.append("")
    return "\n".join(lines)


_ABOUT = ("date", "command", "expected", "took_s", "where")
"""Keys of a result that the table leaves out."""


def _flat(found: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in found.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            rows += _flat(value, f"{name}: ")
        else:
            shown = f"{value:.4g}" if isinstance(value, float) else str(value)
            rows.append((name.replace("|", "/"), shown.replace("|", "/").replace("\n", " ")))
    return rows


def read(folder: Path) -> list[dict[str, Any]]:
    """Return all results that are saved in `folder`."""
    files = sorted(folder.glob(f"{PREFIX}*.json"))
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def main() -> int:
    """Run the probes, save and print the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("probes", nargs="*", help="only probes whose names begin with these words")
    parser.add_argument(
        "--seconds", type=float, default=90.0, help="start no probe after this time"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print the saved results")
    given = parser.parse_args()
    if given.table:
        print(table(read(given.results)))
        return 0
    from quantchat.host.worker_process import WORKER_VARIABLES

    os.environ.update({**WORKER_VARIABLES, **os.environ})  # before torch, as in a worker
    questions = importlib.import_module("questions")
    kept = Kept(given.results, questions.device_name())
    began = time.monotonic()
    for name, probe in questions.PROBES.items():
        if given.probes and not name.startswith(tuple(given.probes)):
            continue
        if time.monotonic() - began > given.seconds:
            print(f"{name}: skipped, no time left", flush=True)
            continue
        result = ask(name, probe)
        kept.keep(name, result)
        print(json.dumps({"probe": name, **result}, default=str), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
