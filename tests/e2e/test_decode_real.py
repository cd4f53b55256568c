"""Each decode mode of the real model gives the tokens of `generate`, except at rounding ties."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from fakes.c_compiler import HAS_C_COMPILER
from fakes.decoding import ENVIRONMENT
from quantchat.wire.messages import LoadModel

pytestmark = pytest.mark.model

PROGRAM = Path(__file__).with_name("decode_in_modes.py")
TOKENS = 64
TIE_ULPS = 4
"""Logits no further apart, in units of the dtype's rounding, are a tie. Thirty layers round before
the last product does: two loops that round in another order choose between logits up to 2 apart
where the processor multiplies bfloat16, and up to 4 where it does not (AVX2)."""
FORCED_NATS = 0.1
"""Most that bfloat16's rounding was let move the logarithm of a probability, on average. A layer
that reads another one's scales moves it by 10."""


FUSED = "eager, fused Llama steps" + (" in C" if HAS_C_COMPILER else "")


def decoded(load: LoadModel, mode: str, prompts: int) -> list[dict[str, Any]]:
    command = [sys.executable, str(PROGRAM), json.dumps(asdict(load)), str(TOKENS), str(prompts)]
    command.append(mode)
    run = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    found: list[dict[str, Any]] = json.loads(run.stdout)
    return found


def assert_generates_tokens(found: list[dict[str, Any]], decode: str) -> None:
    assert {told["decode"] for told in found} == {decode}
    for told in found:
        assert told["forced"] < FORCED_NATS, told
        if told["same"] < TOKENS:
            assert told["gap"] <= TIE_ULPS * told["ulp"], told


def test_gptq(demo_gptq: Path) -> None:
    load = LoadModel("gptq", str(demo_gptq), {"kernel": "auto"}, threads=1)
    assert_generates_tokens(decoded(load, "eager", prompts=4), FUSED)


def test_nf4(demo_base: Path) -> None:
    options = {"quant_type": "nf4", "double_quant": True, "compute_dtype": "auto"}
    load = LoadModel("bitsandbytes", str(demo_base), options, threads=1)
    # Without AVX-512, bitsandbytes' own modules take 0.3 s for a token: hence fewer prompts.
    assert_generates_tokens(decoded(load, "auto", prompts=2), FUSED)
