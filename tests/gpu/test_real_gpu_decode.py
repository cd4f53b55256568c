"""On a real GPU: a captured graph and a compiled step give the tokens of `generate`."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from fakes.decoding import ENVIRONMENT, OPTIONS
from quantchat.wire.messages import LoadModel
from quantchat.worker.decode.check import ULPS

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("torch")]

PROGRAM = Path(__file__).parents[1] / "e2e" / "decode_in_modes.py"
TOKENS = 64
TIE_ULPS = 2


@pytest.mark.parametrize("mode", ["eager", "graph", "compile"])
@pytest.mark.parametrize("engine", ["gptq", "bitsandbytes", "transformers"])
def test_greedy_tokens_are_generates(
    mode: str, engine: str, random_models: dict[str, Path]
) -> None:
    load = LoadModel(
        engine, str(random_models[engine]), OPTIONS[engine], dtype="bfloat16", device="cuda:0"
    )
    command = [sys.executable, str(PROGRAM), json.dumps(asdict(load)), str(TOKENS), mode]
    run = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    for told in json.loads(run.stdout):
        assert told["decode"].partition(",")[0] == mode  # "graph, fused norms"
        if told["same"] < TOKENS:
            assert told["gap"] <= TIE_ULPS * told["ulp"], told


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("engine", ["gptq", "bitsandbytes"])
def test_a_graph_follows_its_cache(
    engine: str, fused: bool, random_models: dict[str, Path]
) -> None:
    """Through prompts that outgrow the buffers and tokens that do, and back to short ones."""
    import torch

    from quantchat.worker.decode.norms import fusable_norms
    from quantchat.worker.decode.steps.eager import EagerStep
    from quantchat.worker.decode.steps.graph import GraphStep
    from quantchat.worker.loaders import load

    command = LoadModel(
        engine, str(random_models[engine]), OPTIONS[engine], dtype="bfloat16", device="cuda:0"
    )
    loaded = load(command, lambda stage: None)
    norms = fusable_norms(loaded.model) if fused else []
    assert len(norms) == (2 * loaded.model.config.num_hidden_layers + 1 if fused else 0)
    eager, graph = EagerStep(loaded.model), GraphStep(loaded.model, norms)
    # The same tokens in both: kernels of attention differ, and one tie would decide all after it.
    for prompt, steps in ((40, 300), (40, 8), (600, 8), (40, 8), (250, 300), (40, 8)):
        tokens = torch.randint(0, 1000, (1, prompt + steps), device="cuda:0")
        expected, found = eager.run(tokens[:, :prompt]), graph.run(tokens[:, :prompt])
        for place in range(prompt, prompt + steps):
            error = (found.float() - expected.float()).norm() / expected.float().norm()
            assert error < ULPS * torch.finfo(torch.bfloat16).eps, (prompt, place)
            one = tokens[:, place : place + 1]
            expected, found = eager.run(one), graph.run(one)
        eager.forget()
        graph.forget()


def test_int8_is_decoded_eagerly_and_memory_is_given_back(random_models: dict[str, Path]) -> None:
    """LLM.int8() waits for the device in each step, which a graph cannot hold."""
    import torch

    from e2e.decode_in_modes import decode
    from quantchat.worker.decode.decoder import Decoder
    from quantchat.worker.loaders import load

    options = {"quant_type": "int8", "double_quant": False, "compute_dtype": "auto"}
    model = str(random_models["bitsandbytes"])
    command = LoadModel("bitsandbytes", model, options, dtype="float16", device="cuda:0")
    decoder = Decoder(load(command, lambda stage: None), "auto", lambda stage: None)
    assert decoder.chosen.name == "eager"
    assert "makes the host wait" in decoder.chosen.note
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    decode(decoder, "Name a river. " * 400, 8)
    held = torch.cuda.memory_reserved()
    decoder.forget()
    assert torch.cuda.memory_reserved() < held
