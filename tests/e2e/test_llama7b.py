"""The benchmark of Llama's shapes runs at a small size, so that it does not break unnoticed."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import quantchat
from fakes.decoding import ENVIRONMENT

ROOT = Path(__file__).parents[2]
SMALL = "--shape small --rounds 1 --tokens 4 --context 24 --threads 1 --mode generate --mode eager"
VARIANTS = ("GPTQ 4-bit, automatic", "NF4, double quant", "GPTQ 4-bit, Marlin")


@pytest.mark.model
def test_each_variant_is_measured_or_says_why_not(tmp_path: Path) -> None:
    script = str(ROOT / "benchmarks" / "llama7b")
    named = [part for label in VARIANTS for part in ("--variant", label)]
    run = subprocess.run(
        [sys.executable, script, *SMALL.split(), *named, "--results", str(tmp_path)],
        env={**ENVIRONMENT, "PYTHONPATH": str(Path(quantchat.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    (file,) = tmp_path.glob("llama7b-small-*.json")
    result = json.loads(file.read_text(encoding="utf-8"))
    for label in VARIANTS[:2]:
        for mode in ("generate", "eager"):
            figures = result["variants"][label]["modes"][mode]
            assert figures["decode"].startswith(mode)
            assert min(figures["contexts"]["24"]["tok_s"]) > 0
            assert figures["contexts"]["24"]["ledger"]["weights"] > 0
    marlin = result["variants"][VARIANTS[2]]
    assert "modes" in marlin or "CUDA" in marlin["not_run"]
    assert all(
        rates for order in ("in turn", "together") for rates in result["pair"][order].values()
    )
    assert "| NF4, double quant |" in run.stdout


def test_packed_words_hold_the_values_in_order() -> None:
    pack = runpy.run_path(str(ROOT / "benchmarks" / "llama7b" / "shapes.py"))["pack"]
    for bits in (2, 3, 4, 8):
        values = [(7 * place + 3) % 2**bits for place in range(32)]
        words = [word % 2**32 for word in pack(values, bits)]
        whole = sum(word << (32 * place) for place, word in enumerate(words))
        assert [(whole >> (bits * place)) % 2**bits for place in range(32)] == values
    assert pack([7] * 32, 4) == [0x77777777] * 4
