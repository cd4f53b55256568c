"""Runs llama.cpp's benchmark `llama-bench` on the demo's GGUF file, for `decode.py`.

The GGUF is the file from which the demo's other variants were made. Build `llama-bench` from
llama.cpp's sources, or from those in llama-cpp-python's source distribution.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def measure(
    program: Path, gguf: Path, prompts: Sequence[int], tokens: int, rounds: int, threads: int
) -> dict[str, Any]:
    """Run `program` and return its figures under the names that `decode.py` uses.

    `prompts` are lengths in tokens. TTFT is the prefill time alone, always with an empty KV cache.
    Raises SystemExit with the reason if `program` does not run.
    """
    options = {
        "-m": str(gguf),
        "-p": ",".join(map(str, prompts)),
        "-n": str(tokens),
        "-r": str(rounds),
        "-t": str(threads),
        "-o": "json",
    }
    command = [str(program), *(part for option in options.items() for part in option)]
    try:
        run = subprocess.run(command, check=True, capture_output=True, text=True)
    except OSError as error:
        raise SystemExit(f"llama-bench does not start: {error}") from error
    except subprocess.CalledProcessError as error:
        last = error.stderr.strip().rpartition("\n")[2]
        raise SystemExit(f"llama-bench failed with status {error.returncode}: {last}") from error
    return figures(run.stdout)


def figures(printed: str) -> dict[str, Any]:
    """Return the figures in `printed`, the output of `llama-bench -o json`, as `measure` does."""
    tests = json.loads(printed)
    (decoding,) = (test for test in tests if test["n_gen"])
    return {
        "build": decoding["build_commit"],
        "kernel": decoding["model_type"],
        "tok_s": [round(rate, 2) for rate in decoding["samples_ts"]],
        "bytes_per_token": decoding["model_size"],
        "ttft_ms": {
            str(test["n_prompt"]): [round(ns / 1e6, 1) for ns in test["samples_ns"]]
            for test in tests
            if test["n_prompt"] and not test["n_gen"]
        },
    }
