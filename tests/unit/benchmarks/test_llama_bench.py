"""The output of llama-bench, converted to our figures and put into the same table as ours."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"

COMMON = {"build_commit": "b6500", "model_type": "llama 256M Q4_1", "model_size": 96576768}
PRINTED = json.dumps(
    [
        {**COMMON, "n_prompt": 32, "n_gen": 0, "samples_ns": [943900123, 870800456]},
        {**COMMON, "n_prompt": 512, "n_gen": 0, "samples_ns": [2000000000, 2100000000]},
        {**COMMON, "n_prompt": 0, "n_gen": 96, "samples_ts": [88.1049, 90.5, 91.0]},
    ]
)
"""As `llama-bench -o json` prints it, cut to what is read."""


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    return {
        name: runpy.run_path(str(BENCHMARKS / f"{name}.py")) for name in ("llama_bench", "decode")
    }


def test_what_it_prints_is_read(benchmark: dict[str, Any]) -> None:
    assert benchmark["llama_bench"]["figures"](PRINTED) == {
        "build": "b6500",
        "kernel": "llama 256M Q4_1",
        "tok_s": [88.1, 90.5, 91.0],
        "bytes_per_token": 96576768,
        "ttft_ms": {"32": [943.9, 870.8], "512": [2000.0, 2100.0]},
    }


def test_it_stands_below_ours_in_the_table(benchmark: dict[str, Any]) -> None:
    peer = benchmark["llama_bench"]["figures"](PRINTED)
    kept = {"variants": {}, "bandwidth_bytes_s": 4 * 90.5 * 96576768}
    table = benchmark["decode"]["table"]
    row = "| llama 256M Q4_1 | llama.cpp | 90.5 | – | – | 25% | 907 / 2050 | – |"
    assert table({**kept, "llama.cpp": peer}) == f"{table(kept)}\n{row}"


def test_a_program_that_fails_is_named_in_a_line(benchmark: dict[str, Any], tmp_path: Path) -> None:
    measure = benchmark["llama_bench"]["measure"]
    program = tmp_path / "llama-bench"
    with pytest.raises(SystemExit, match="does not start"):
        measure(program, tmp_path / "model.gguf", [32], 8, 1, 1)
    program.write_text("#!/bin/sh\necho loading >&2\necho 'no such model' >&2\nexit 3\n")
    program.chmod(0o700)
    with pytest.raises(SystemExit, match="failed with status 3: no such model"):
        measure(program, tmp_path / "model.gguf", [32], 8, 1, 1)
