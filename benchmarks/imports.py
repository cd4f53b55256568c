"""Measure the cost of importing each engine's libraries, unchanged and in the way a worker does it.

`python benchmarks/imports.py` imports the libraries in new processes, alternately in two ways:
unchanged ("as they are"), and like a worker ("hidden"): packages that no answer needs are hidden,
garbage collection is off, and torch's compiler is left out. It writes
`benchmarks/results/imports.json`: processor seconds, resident memory, number of modules, and the
packages with the most modules.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from driving import circumstances

from quantchat.paths import cache_dir

RESULTS = Path(__file__).parent / "results" / "imports.json"
ENGINES = {
    "transformers": "from transformers import AutoModelForCausalLM, AutoTokenizer; "
    "from transformers.models.llama import modeling_llama",
    "bitsandbytes": "import bitsandbytes, torch; "
    "from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig; "
    "from transformers.models.llama import modeling_llama",
    "gptq": "from gptqmodel import BACKEND, GPTQModel; "
    "from transformers.models.llama import modeling_llama",
}
MOST_NAMED = 12
"""Number of packages that are listed with their modules."""
_PROGRAM = """
import collections, contextlib, json, sys, time
from quantchat.worker.import_pruning import without_collection, without_compiler
from quantchat.worker.loaders import hide_unused
from quantchat.worker.memory import resident_bytes
from quantchat.worker.transformers_index import reuse_index
from quantchat.wire.messages import LoadModel
before = set(sys.modules)
if sys.argv[3] == "hidden":
    hide_unused(LoadModel(sys.argv[1], "", {}))
began = time.process_time()
with contextlib.ExitStack() as as_workers_do:
    if sys.argv[3] == "hidden":
        reuse_index()
        as_workers_do.enter_context(without_collection())
        as_workers_do.enter_context(without_compiler())
    exec(sys.argv[2])
spent = time.process_time() - began
new = [name for name in sys.modules if name not in before and sys.modules[name] is not None]
by_package = collections.Counter(name.partition(".")[0] for name in new)
print(json.dumps({
    "cpu_s": round(spent, 2),
    "resident_mib": round(resident_bytes()[0] / 2**20),
    "modules": len(new),
    "packages": dict(by_package.most_common(int(sys.argv[4]))),
}), file=sys.stderr)
"""


def once(engine: str, how: str) -> dict[str, Any]:
    """Import an engine's libraries in a new process, and return the figures.

    `how` is "as they are" or "hidden".
    """
    run = subprocess.run(
        [sys.executable, "-c", _PROGRAM, engine, ENGINES[engine], how, str(MOST_NAMED)],
        env={
            **os.environ,
            "GPTQMODEL_CPU_WORKERS": "2",
            "TORCHINDUCTOR_CACHE_DIR": str(cache_dir() / "compiled"),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(run.stderr.splitlines()[-1])
    return found


def main() -> None:
    """Measure, write and print the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    result = circumstances(f"imports.py --rounds {rounds}")
    runs: dict[str, dict[str, list[dict[str, Any]]]] = {
        engine: {"as they are": [], "hidden": []} for engine in ENGINES
    }
    for _ in range(rounds):
        for engine, ways in runs.items():
            for how, found in ways.items():
                found.append(once(engine, how))
    result["engines"] = {
        engine: {how: _middle(found) for how, found in ways.items()}
        for engine, ways in runs.items()
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for engine, ways in result["engines"].items():
        for how, one in ways.items():
            print(
                f"{engine}, {how}: {one['cpu_s']:.2f} s, {one['resident_mib']} MiB, "
                f"{one['modules']} modules"
            )


def _middle(found: list[dict[str, Any]]) -> dict[str, Any]:
    figures = ("cpu_s", "resident_mib", "modules")
    middle = {name: statistics.median(one[name] for one in found) for name in figures}
    return {**middle, "packages": found[-1]["packages"]}


if __name__ == "__main__":
    main()
