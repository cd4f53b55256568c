"""Check that quantchat decodes each architecture of transformers as the model itself computes.

`python benchmarks/architectures.py` builds a tiny model with random float32 weights for each
architecture. In the decode modes `generate` and `auto`, it computes a first, a second, an edited
and a long turn, a turn after a stopped answer, and teacher forcing. It compares the results with
those of one forward pass of the same model without a KV cache, and writes the errors to
`benchmarks/results/architectures.json`. If architectures are named on the command line, only these
are checked, and only their rows are replaced. quantchat may refuse an architecture when it loads
the model. The exit status is 1 if an architecture that is not refused gives wrong results.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import platform
import sys
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from fakes.tiny_architectures import ARCHITECTURES  # noqa: E402 - the tests' models
from quantchat.system.host import cpu_name  # noqa: E402

RESULTS = HERE / "results" / "architectures.json"
MODES = ("generate", "auto")
MOST_S = 600.0
"""Longest time for one model, in s; after that its row says that it failed."""


PRELOADED = ("torch", "transformers", "quantchat.worker.decode.decoder", "fakes.decoder_probe")
"""Modules imported once, before a process is forked for each model."""


def main() -> int:
    """Check the models, print a line for each, save the results; 1 if a model computes wrongly."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="key of ARCHITECTURES in tests/fakes/"
    )
    names = parser.parse_args().names
    if unknown := [name for name in names if name not in ARCHITECTURES]:
        parser.error(f"not known: {', '.join(unknown)}")
    kept = json.loads(RESULTS.read_text("utf-8")) if names and RESULTS.exists() else _about()
    for module in PRELOADED:
        importlib.import_module(module)
    for name in names or ARCHITECTURES:
        row = {"models": ARCHITECTURES[name].models, **_in_a_process(name)}
        rows = {**kept["architectures"], name: row}
        kept["architectures"] = {name: rows[name] for name in ARCHITECTURES if name in rows}
        print(f"{name:20} {_line(row)}", flush=True)
        RESULTS.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    modes = [row for model in kept["architectures"].values() for row in _modes(model)]
    right = sum(not _faults(row) and "refused" not in row for row in modes)
    refused = sum("refused" in row for row in modes)
    wrong = sum(bool(_faults(row)) for row in modes)
    print(f"{len(modes)} models and modes: {right} right, {refused} refused, {wrong} wrong")
    return 1 if wrong else 0


def _about() -> dict[str, Any]:
    return {
        "what": "greatest relative error of logits against one uncached pass, float32; for teacher "
        "forcing the greatest error of a log-probability; where the reference itself is off, the "
        "model has no exact answer",
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": "python benchmarks/architectures.py",
        "machine": f"{cpu_name()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in ("torch", "transformers")},
        "architectures": {},
    }


def _in_a_process(name: str) -> dict[str, Any]:
    """Check `name` in a new process and return its row: a crash or a hang affects no other row."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_probe, args=(name, theirs))
    process.start()
    theirs.close()
    try:
        row = ours.recv() if ours.poll(MOST_S) else {"failed": f"not done in {MOST_S:g} s"}
    except EOFError:
        process.join()
        row = {"failed": f"the process ended with status {process.exitcode}"}
    process.kill()
    process.join()
    return dict(row)


def _probe(name: str, channel: Any) -> None:
    """Check `name` in each mode and send its row to `channel`; runs in a process of its own."""
    import torch
    import transformers

    from fakes.decoder_probe import Probe
    from fakes.tiny_architectures import tiny_model
    from quantchat.worker.failures import Refused

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    row: dict[str, Any] = {}
    for mode in MODES:
        try:
            probe = Probe(tiny_model(name), mode)
        except Refused as refused:
            row[mode] = {"refused": str(refused)}
            continue
        except Exception as error:  # noqa: BLE001 - a model's own code may raise anything
            row[mode] = {"failed": f"{type(error).__name__}: {str(error)[:200]}"}
            continue
        chosen = probe.decoder.chosen
        row[mode] = {"decode": chosen.name, "note": chosen.note, "errors": {}}
        for check, run in probe.checks.items():
            try:
                found: float | str = float(f"{run():.2g}")
            except Exception as error:  # noqa: BLE001 - see above
                found = f"{type(error).__name__}: {str(error)[:200]}"
            row[mode]["errors"][check] = found
    channel.send(row)


def _modes(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the result of each mode, or only `row` itself if the process failed as a whole."""
    return [row] if "failed" in row else [row[mode] for mode in MODES]


def _faults(row: dict[str, Any]) -> list[str]:
    """Return a text for each check that is wrong in the result `row` of one mode.

    If the model's forward pass without a KV cache is not reproducible itself, the model has no
    exact answer to compare with: then only exceptions are wrong.
    """
    from fakes.decoder_probe import REFERENCE, ROUNDING

    if "failed" in row:
        return [str(row["failed"])]
    errors = row.get("errors", {})
    wrong = {c: e for c, e in errors.items() if isinstance(e, str) or not e <= ROUNDING}
    exact = REFERENCE not in wrong
    return [f"{c} {e}" for c, e in wrong.items() if exact or isinstance(e, str)]


def _line(row: dict[str, Any]) -> str:
    parts = []
    for mode, of in zip(MODES, _modes(row), strict=False):
        said = of.get("refused") or "; ".join(_faults(of)) or "ok"
        parts.append(f"{mode}: {'refused: ' if 'refused' in of else ''}{said}")
        if of.get("note"):
            parts[-1] += f" ({of['note']})"
    return " | ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
