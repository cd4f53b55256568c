"""Check that comparing a variant with itself says "no difference shown".

`record` measures one variant against itself several times. In each run the variant has two labels,
"one" and "two", and so two new worker processes. `record` writes the times of every answer to
`benchmarks/results/self_comparison.json`. `check` reads these times and makes four kinds of
comparisons, with a fixed seed:

- sides swapped (100 comparisons): draw a run, and swap left and right in randomly drawn rounds. All
  prompts of a round are swapped together, because a slow machine is slow for all of them;
- rounds split (100 comparisons): draw rounds of one label from all runs, twice as many as a run
  has, and compare one half with the other, like two runs that were measured at different times;
- as recorded: compare "one" with "two" in each run;
- in their order: compare each label with itself in the previous run.

In the first two, both sides are equal by construction, with real times: at most 7 of the 100
comparisons may show a difference, in any figure. The last two are printed but not judged: two
processes may really differ, and a machine may really change between two runs.

Two more counts are printed with each. "by prompts alone" counts the differences shown if the
interval allows only for prompts and not for rounds, too. "if twice as slow" counts the differences
shown if the times of the right side are doubled: with "sides swapped" these must be at least 90 of
100, because an interval must not be so wide that it hides such a difference.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from quantchat.snapshot import store
from quantchat.snapshot.compared_sides import Column, Run, columns
from quantchat.snapshot.figures import FIGURES, AnswerFigure
from quantchat.statistics.intervals import Pair, ratio_of

RESULTS = Path(__file__).parent / "results" / "self_comparison.json"
REPETITIONS = 100
MOST_SHOWN = 7
FEWEST_FOUND = 90
SEED = 20261123
FIGURE_NAMES = ("ttft_ms", "tpot_ms", "end_to_end_ms")  # decode_tps is 1000 / tpot_ms

PROFILE = """
name = "NF4 against itself"

[[variants]]
label = "one"
engine = "bitsandbytes"
model = "demo:smollm2-135m-instruct"

[[variants]]
label = "two"
engine = "bitsandbytes"
model = "demo:smollm2-135m-instruct"
"""
PROMPTS = """
Explain step by step how a bicycle stays upright.
Write a Python function that returns the n-th Fibonacci number.
Summarise the causes of the French Revolution in one paragraph.
Write a short letter to a neighbour about watering the plants.
What are the differences between a list and a tuple in Python?
Name three rivers of Europe and say where each of them ends.
"""
OPTIONS = ("--ignore-eos", "--max-new-tokens", "24", "--rounds", "5")

Round = list[float]
"""One figure of each prompt in one round."""

Side = Mapping[str, Sequence[Round]]
"""The rounds of one side of one run, by figure."""

# ------------------------------------------------------------ recording


def record(count: int, note: str) -> None:
    """Measure `count` runs and save their times; `note` says what else the machine did."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "same.toml").write_text(PROFILE)
        (folder / "prompts.txt").write_text(PROMPTS)
        command = ["run", "same.toml", "--prompts", "prompts.txt", *OPTIONS, "--save", "saved"]
        for _ in range(count):
            subprocess.run([sys.executable, "-m", "quantchat", *command], cwd=folder, check=True)
        write(sorted((folder / "saved").glob("*.json")), " ".join(["quantchat", *command]), note)


def write(snapshots: Sequence[Path], command: str, note: str) -> None:
    """Save those figures of the snapshots that `check` needs."""
    runs = [Run(str(file), store.load(file)) for file in snapshots]
    environment = runs[0].snapshot.environment
    model_info = columns(runs)[0].model_info
    body = {
        "what": "times in ms of each answer, by figure, round and prompt; process memory in bytes",
        "command": command,
        "note": note,
        "machine": f"{environment.device.host.cpu}, {environment.device.host.cores} cores, shared",
        "python": platform.python_version(),
        "kernel": model_info.kernel if model_info else "",
        "libraries": model_info.libraries if model_info else {},
        "runs": [
            {"created": run.snapshot.created, **{c.label: _side(c) for c in columns([run])}}
            for run in runs
        ],
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(
        json.dumps(body, separators=(",", ":")).replace('{"created"', '\n{"created"')
    )


def _side(column: Column) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for figure in FIGURES:
        if isinstance(figure, AnswerFigure) and figure.name in FIGURE_NAMES:
            samples = column.samples(figure)
            rounds = sorted({round_ for _, round_ in samples})
            tasks = column.run.tasks.values()
            found[figure.name] = [[round(samples[t, r], 2) for t in tasks] for r in rounds]
        elif figure.name == "process_bytes":
            found[figure.name] = column.mean(figure)
    return found


# ------------------------------------------------------------ checking

Sides = tuple[Sequence[Round], Sequence[Round]]


def as_recorded(runs: Sequence[Mapping[str, Side]], figure: str) -> Iterator[Sides]:
    for run in runs:
        yield run["one"][figure], run["two"][figure]


def in_their_order(runs: Sequence[Mapping[str, Side]], figure: str) -> Iterator[Sides]:
    for before, after in itertools.pairwise(runs):
        for label in ("one", "two"):
            yield before[label][figure], after[label][figure]


def sides_swapped(runs: Sequence[Mapping[str, Side]], figure: str) -> Iterator[Sides]:
    lot = random.Random(SEED)
    for _ in range(REPETITIONS):
        run = lot.choice(runs)
        both = zip(run["one"][figure], run["two"][figure], strict=True)
        dealt = [lot.sample(sides, 2) for sides in both]
        yield [left for left, _ in dealt], [right for _, right in dealt]


def rounds_split(runs: Sequence[Mapping[str, Side]], figure: str) -> Iterator[Sides]:
    lot = random.Random(SEED)
    half = len(runs[0]["one"][figure])
    for _ in range(REPETITIONS):
        label = lot.choice(("one", "two"))
        drawn = lot.sample([one for run in runs for one in run[label][figure]], 2 * half)
        yield drawn[:half], drawn[half:]


WAYS = {
    "sides swapped": sides_swapped,
    "rounds split": rounds_split,
    "as recorded": as_recorded,
    "in their order": in_their_order,
}
JUDGED = ("sides swapped", "rounds split")


def shown(sides: Sides, *, blind: bool = False, slower: float = 1) -> bool:
    """Return whether a difference is shown, with the right side's figures multiplied by `slower`.

    With `blind`, all pairs count as one round, so that the interval allows only for prompts.
    """
    pairs = [
        Pair(prompt, 0 if blind else number, a, b * slower)
        for number, (left, right) in enumerate(zip(*sides, strict=True))
        for prompt, (a, b) in enumerate(zip(left, right, strict=True))
    ]
    ratio = ratio_of(pairs)
    assert ratio is not None
    return ratio.shown


def check() -> bool:
    """Print as JSON how often a difference was shown; return whether the limits hold."""
    runs = json.loads(RESULTS.read_text())["runs"]
    holds = True
    body: dict[str, dict[str, dict[str, int]]] = {name: {} for name in WAYS}
    for (name, way), figure in itertools.product(WAYS.items(), FIGURE_NAMES):
        cases = list(way(runs, figure))
        count = sum(map(shown, cases))
        twice = sum(shown(sides, slower=2) for sides in cases)
        body[name][figure] = {
            "of": len(cases),
            "shown": count,
            "by prompts alone": sum(shown(sides, blind=True) for sides in cases),
            "if twice as slow": twice,
        }
        if name in JUDGED:
            holds = holds and count <= MOST_SHOWN
        if way is sides_swapped:
            holds = holds and twice >= FEWEST_FOUND
    print(json.dumps({"holds": holds, "differences": body}, indent=2))
    return holds


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record")
    recording.add_argument("--runs", type=int, default=12)
    recording.add_argument("--note", default="", help="what else the machine did")
    commands.add_parser("check")
    given = parser.parse_args()
    if given.command == "record":
        record(given.runs, given.note)
        return 0
    return 0 if check() else 1


if __name__ == "__main__":
    sys.exit(main())
