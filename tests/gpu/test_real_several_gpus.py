"""On two real GPUs: the second GPU, and both together, give the tokens of the first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from e2e.decode_in_modes import PROMPTS, decode
from fakes.decoding import OPTIONS
from quantchat.wire.messages import LoadModel
from quantchat.worker.decode.decoder import Decoder
from quantchat.worker.loaders import gptq, load
from quantchat.worker.model import loaded

pytestmark = [pytest.mark.gpu, pytest.mark.model]

TOKENS = 32
WEIGHTS = {"gptq": 114_000_000, "bitsandbytes": 111_000_000, "transformers": 269_000_000}
"""Bytes of the demo's, by engine."""


@pytest.fixture(autouse=True)
def _two_gpus(torch: Any) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip(f"torch sees {torch.cuda.device_count()} CUDA devices, two are needed")
    names = [torch.cuda.get_device_name(index) for index in range(2)]
    if names[0] != names[1]:
        pytest.skip(f"{' and '.join(names)} may round differently")


def started(engine: str, model: Path, device: str, decode: str) -> tuple[Any, Decoder]:
    command = LoadModel(engine, str(model), OPTIONS[engine], dtype="bfloat16", device=device)
    ready = load(command, lambda stage: None)
    return ready, Decoder(ready, decode, lambda stage: None)


@pytest.mark.parametrize("engine", WEIGHTS)
@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_the_second_gpu(engine: str, mode: str, demo_base: Path, demo_gptq: Path) -> None:
    model = demo_gptq if engine == "gptq" else demo_base
    said = {}
    for device in ("cuda:0", "cuda:1"):
        ready, decoder = started(engine, model, device, mode)
        assert ready.device == device
        said[device] = [decode(decoder, prompt, TOKENS) for prompt in PROMPTS]
        assert decoder.ledger().device == device
    assert said["cuda:0"] == said["cuda:1"]


@pytest.mark.parametrize("engine", WEIGHTS)
def test_both_together(
    engine: str, demo_base: Path, demo_gptq: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = demo_gptq if engine == "gptq" else demo_base
    _, alone = started(engine, model, "cuda:0", "eager")
    expected = [decode(alone, prompt, TOKENS) for prompt in PROMPTS]

    size = WEIGHTS[engine]
    for module in (loaded, gptq):
        monkeypatch.setattr(module, "room_by_gpu", lambda *_: {0: int(0.7 * size), 1: 2 * size})
    ready, spread = started(engine, model, "auto", "auto")
    assert ready.devices == ["cuda:0", "cuda:1"]
    assert "several GPUs" in spread.chosen.note
    assert [decode(spread, prompt, TOKENS) for prompt in PROMPTS] == expected
    ledger = spread.ledger()
    assert set(ledger.weights_by_device) == set(ledger.reserved_by_device) == set(ready.devices)
    assert sum(ledger.weights_by_device.values()) == ledger.weights
