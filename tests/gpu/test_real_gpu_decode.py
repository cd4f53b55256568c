"""On a real GPU: a captured graph and a compiled step say what generate says."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from fakes.decoding import ENVIRONMENT
from quantchat.metrics.sampler import DeviceSampler
from quantchat.worker.protocol import Load

pytestmark = [pytest.mark.gpu, pytest.mark.model]

PROGRAM = Path(__file__).parents[1] / "e2e" / "decode_in_modes.py"
TOKENS = 64
TIE_ULPS = 2


@pytest.fixture(autouse=True)
def _gpu() -> None:
    no_gpu = DeviceSampler().sample().no_gpu
    if no_gpu:
        pytest.skip(no_gpu)
    torch: Any = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")


@pytest.mark.parametrize("mode", ["eager", "graph", "compile"])
@pytest.mark.parametrize("engine", ["gptq", "bitsandbytes", "transformers"])
def test_greedy_tokens_are_generates(
    mode: str, engine: str, demo_base: Path, demo_gptq: Path
) -> None:
    options: dict[str, dict[str, Any]] = {
        "gptq": {"kernel": "triton"},
        "bitsandbytes": {"quant_type": "nf4", "double_quant": True, "compute_dtype": "auto"},
        "transformers": {},
    }
    model = demo_gptq if engine == "gptq" else demo_base
    load = Load(engine, str(model), options[engine], dtype="bfloat16", device="cuda:0")
    command = [sys.executable, str(PROGRAM), json.dumps(asdict(load)), str(TOKENS), mode]
    run = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    for told in json.loads(run.stdout):
        assert told["decode"] == mode
        if told["same"] < TOKENS:
            assert told["gap"] <= TIE_ULPS * told["ulp"], told
