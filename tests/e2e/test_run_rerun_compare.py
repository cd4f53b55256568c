"""`run`, `rerun` and `compare` as real programs on the real model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import quantchat

pytestmark = pytest.mark.model


def program(*args: str, cache: Path) -> subprocess.CompletedProcess[str]:
    source = str(Path(quantchat.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-m", "quantchat", *args],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": source, "QUANTCHAT_CACHE": str(cache)},
        text=True,
        check=False,
    )


def snapshot_in(folder: Path) -> Path:
    (file,) = folder.glob("*.json")
    return file


PROTOCOL = """
name = "Our protocol"
variants = [
    { label = "one", engine = "transformers", model = "not/loaded" },
    { label = "other", engine = "transformers", model = "not/loaded" },
]
generation.max_new_tokens = 6
run = { rounds = 2, warmup = 1, prompts = ["Name a colour.", "Count to ten."] }
"""


def test_a_run_is_done_again_and_compared(demo_cache: Path, tmp_path: Path) -> None:
    protocol = tmp_path / "protocol.toml"
    protocol.write_text(PROTOCOL)
    plan = ["--settings-of", str(protocol), "--ignore-eos"]
    first, second = tmp_path / "first", tmp_path / "second"
    ran = program("run", "demo", *plan, "--save", str(first), cache=demo_cache)
    assert ran.returncode == 0, ran.stderr
    assert "B ÷ A" in ran.stdout
    assert "Mean of each prompt, one at a time" in ran.stdout
    assert "2. Count to ten." in ran.stdout
    old = snapshot_in(first)

    again = program("rerun", str(old), "--json", "--save", str(second), cache=demo_cache)
    assert again.returncode == 0, again.stderr
    new = snapshot_in(second)
    body: dict[str, Any] = json.loads(again.stdout)
    assert body == json.loads(new.read_text())
    before = json.loads(old.read_text())
    assert before["measurement"]["tasks"] == body["measurement"]["tasks"]
    assert body["measurement"]["rounds"] == 2
    assert [len(a["ids"]) for t in body["turns"] for a in t["answers"]] == [6] * 8
    assert [a["ids"] for t in body["turns"] for a in t["answers"]] == [
        a["ids"] for t in before["turns"] for a in t["answers"]
    ], "greedy decoding says the same again"

    gates = ["--fail-if", "d.tpot_ms > 1000 * b.tpot_ms"]
    passed = program("compare", str(old), str(new), "--json", *gates, cache=demo_cache)
    assert passed.returncode == 0, passed.stderr
    compared = json.loads(passed.stdout)
    assert compared["comparable"]
    assert [one["what"] for one in compared["differences"] if "library" in one["what"]] == []
    assert {c["column"]: c["variant"] for c in compared["columns"]}["c"] == "GPTQ 4-bit"

    gates = ["--fail-if", "a.weights_bytes < 1e9", "--fail-if", "b.weights_bytes < 1"]
    failed = program("compare", str(old), *gates, cache=demo_cache)
    assert failed.returncode == 1
    assert "failed  a.weights_bytes < 1000000000: " in failed.stdout
    assert "passed  b.weights_bytes < 1: " in failed.stdout
