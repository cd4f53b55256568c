"""Build the package, install it in fresh environments, and let the demo answer in each.

`python benchmarks/package.py` builds the wheel and the source distribution into `dist/`, checks
their metadata, installs the wheel with the newest and with the lowest allowed versions under each
Python interpreter that quantchat supports, and asks the demo a question there. uv must be on PATH;
it finds or downloads the interpreters. Each environment is removed again: it takes several GB.

`--python 3.11` and `--resolution highest` choose some of the environments. `--constraint FILE` is
passed to uv, for example to install torch's build for CPUs. `--cache FOLDER` names a cache folder
of quantchat whose checkpoints the demo may use; without this option the demo builds them. The
results are added to those of earlier runs in `benchmarks/results/package.json`; `--table` prints
the table of the documentation.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from datetime import datetime, timezone
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from session import HERE, TESTS, keep, kept

import quantchat

sys.path.insert(0, str(TESTS))

from fakes.terminal import Terminal

ROOT = HERE.parent
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
RESOLUTIONS = {"highest": "newest", "lowest-direct": "lowest"}
"""uv's names of the resolutions, and what the table calls them."""
LIBRARIES = ("torch", "transformers", "bitsandbytes", "gptqmodel", "textual", "pydantic")
MAKING_S = 3600
"""Time limit, in s, for each of these: to build and load the demo's checkpoints, and to answer."""


def build(folder: Path) -> tuple[Path, Path]:
    """Build wheel and source distribution in `folder`; check their metadata; return their paths.

    The wheel is built from the source distribution.
    """
    folder.mkdir()
    run = [sys.executable, "-m"]
    subprocess.run([*run, "build", "--outdir", str(folder), str(ROOT)], check=True, cwd=folder)
    (wheel,), (source,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    subprocess.run([*run, "twine", "check", "--strict", str(wheel), str(source)], check=True)
    return wheel, source


def installed(
    wheel: Path,
    python: str,
    resolution: str,
    constraints: list[str],
    folder: Path,
    cache: Path | None,
) -> dict[str, Any]:
    """Install `wheel` in an environment in `folder`, and let the demo answer there.

    `constraints` are uv's constraint files, `cache` is a cache folder of quantchat with
    checkpoints. Return the versions that were installed, and the time until the answers.
    """
    environment = folder / "environment"
    interpreter = str(environment / "bin" / "python")
    subprocess.run(["uv", "venv", "--quiet", "--python", python, str(environment)], check=True)
    held = [part for file in constraints for part in ("--constraint", file)]
    install = ["uv", "pip", "install", "--python", interpreter, "--resolution", resolution, *held]
    # The wheel's dependencies are listed too: lowest-direct chooses the lowest versions only for
    # what the command itself names.
    subprocess.run([*install, str(wheel), *_dependencies(wheel)], check=True, cwd=folder)
    program = environment / "bin" / "quantchat"
    said = subprocess.run(
        [program, "--version"], check=True, capture_output=True, text=True, cwd=folder
    )
    assert said.stdout == f"quantchat {quantchat.__version__}\n", said.stdout
    listed = subprocess.run(
        ["uv", "pip", "list", "--python", interpreter, "--format", "json"],
        check=True,
        capture_output=True,
        text=True,
    )
    versions = {one["name"]: one["version"] for one in json.loads(listed.stdout)}
    began = time.monotonic()
    answer(program, folder, cache)
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "quantchat": quantchat.__version__,
        "python": python,
        "resolution": resolution,
        "constraints": [Path(file).read_text(encoding="utf-8").split() for file in constraints],
        "libraries": {name: versions[name] for name in LIBRARIES},
        "checkpoints": "made here" if cache is None else "made before",
        "answered_s": round(time.monotonic() - began),
    }


def _dependencies(wheel: Path) -> list[str]:
    (found,) = distributions(path=[str(wheel)])
    return [one for one in found.requires or () if "extra ==" not in one]


def answer(program: Path, folder: Path, cache: Path | None) -> None:
    """Start the demo with empty folders, ask both variants a question, and quit.

    With `cache`, the demo uses this cache folder instead of an empty one.
    """
    names = ("CACHE", "CONFIG", "LOGS", "SNAPSHOTS")
    own = {f"QUANTCHAT_{name}": str(folder / name.lower()) for name in names}
    if cache is not None:
        own["QUANTCHAT_CACHE"] = str(cache)
    with closing(Terminal([str(program), "demo"], cwd=folder, env=own)) as terminal:
        terminal.wait_for(lambda: terminal.text.count("● ready") == 2, "both ready", MAKING_S)
        terminal.type("What is the capital of France?\r")
        terminal.wait_for(lambda: terminal.text.count("Paris") >= 2, "both answers", MAKING_S)
        terminal.wait_for(lambda: terminal.text.count("● ready") == 2, "their end", MAKING_S)
        terminal.type("\x11\x11")
        assert terminal.wait_for_exit() == 0


def table(runs: list[dict[str, Any]]) -> str:
    """Return the results as Markdown."""
    lines = [
        f"| Python | versions | {' | '.join(LIBRARIES)} |",
        f"| --- | --- |{' --- |' * len(LIBRARIES)}",
    ]
    for run in runs:
        cells = [run["python"], RESOLUTIONS[run["resolution"]]]
        cells += [run["libraries"][name] for name in LIBRARIES]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Build, install and run, or print the saved table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", action="append", choices=PYTHONS)
    parser.add_argument("--resolution", action="append", choices=RESOLUTIONS)
    parser.add_argument("--constraint", action="append", default=[], metavar="FILE")
    parser.add_argument("--cache", type=Path, metavar="FOLDER")
    parser.add_argument("--table", action="store_true")
    wanted = parser.parse_args()
    if wanted.table:
        print(table(kept("package")["runs"]))
        return
    with tempfile.TemporaryDirectory() as scratch:
        wheel, _ = build(Path(scratch) / "dist")
        for python in wanted.python or PYTHONS:
            for resolution in wanted.resolution or RESOLUTIONS:
                with tempfile.TemporaryDirectory(dir=scratch) as folder:
                    found = installed(
                        wheel, python, resolution, wanted.constraint, Path(folder), wanted.cache
                    )
                save(found)


def save(found: dict[str, Any]) -> None:
    """Add a run to the saved runs; it replaces a run with the same Python and resolution."""

    def place(run: dict[str, Any]) -> tuple[int, int]:
        return PYTHONS.index(run["python"]), list(RESOLUTIONS).index(run["resolution"])

    path = HERE / "results" / "package.json"
    runs = kept("package")["runs"] if path.is_file() else []
    runs = [run for run in runs if place(run) != place(found)] + [found]
    keep("package", {"command": "python benchmarks/package.py", "runs": sorted(runs, key=place)})


if __name__ == "__main__":
    main()
