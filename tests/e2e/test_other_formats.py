"""A worker decodes checkpoints in formats that transformers loads through another library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fakes.greedy_answer import greedy_answer
from fakes.tiny_folder import tiny_folder
from quantchat.wire.messages import Finished, LoadModel, Ready

MOST = 12
GROUP = 32


@pytest.fixture(autouse=True)
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTCHAT_LOGS", str(tmp_path / "logs"))


async def loaded(folder: Path, decode: str) -> tuple[Ready, Finished]:
    """Load `folder` in a worker on the CPU; return what runs, and a greedy answer."""
    options: dict[str, Any] = {"gguf_file": None}
    load = LoadModel("transformers", str(folder), options, device="cpu", decode=decode)
    return await greedy_answer(load, MOST)


def torchao_int4(folder: Path) -> str:
    """Write a checkpoint that torchao quantized to 4 bits; return the name of its kernel."""
    quantization = pytest.importorskip("torchao.quantization")
    from transformers import AutoModelForCausalLM, TorchAoConfig

    source = tiny_folder(folder / "source")
    config = TorchAoConfig(quantization.IntxWeightOnlyConfig(weight_dtype=torch.int4))
    model = AutoModelForCausalLM.from_pretrained(
        source, dtype=torch.float32, quantization_config=config
    )
    model.save_pretrained(folder)
    for file in source.glob("tokenizer*"):
        file.rename(folder / file.name)
    return "torchao"


def compressed_tensors_int4(folder: Path) -> str:
    """Write a checkpoint in `pack-quantized` of compressed-tensors: 4 bits in groups."""
    pytest.importorskip("compressed_tensors")
    from compressed_tensors.compressors import pack_to_int32

    tiny_folder(folder)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    for name in [one for one in tensors if one.endswith("_proj.weight")]:
        weight = tensors.pop(name)
        groups = weight.reshape(weight.shape[0], -1, GROUP)
        scale = groups.abs().amax(-1, keepdim=True) / 7
        packed = (groups / scale).round().clamp(-8, 7).to(torch.int8).reshape(weight.shape)
        tensors[f"{name}_packed"] = pack_to_int32(packed, 4)
        tensors[f"{name}_scale"] = scale.squeeze(-1).contiguous()
        tensors[f"{name}_shape"] = torch.tensor(weight.shape)
    save_file(tensors, file, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    weights = {
        "num_bits": 4,
        "type": "int",
        "symmetric": True,
        "strategy": "group",
        "group_size": GROUP,
    }
    config["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
        "ignore": ["lm_head"],
    }
    (folder / "config.json").write_text(json.dumps(config))
    return "compressed-tensors"


def auto_round_int4(folder: Path) -> str:
    """Write a checkpoint that AutoRound quantized, without its optimization."""
    auto_round = pytest.importorskip("auto_round", reason="auto-round is not installed")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = tiny_folder(folder / "source", hidden_size=128, intermediate_size=256)
    rounding = auto_round.AutoRound(
        AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16),
        AutoTokenizer.from_pretrained(source),
        bits=4,
        group_size=GROUP,
        iters=0,
        disable_opt_rtn=True,
        device_map="cpu",
    )
    rounding.quantize_and_save(str(folder / "made"), format="auto_round")
    (made,) = (folder / "made").rglob("config.json")
    for file in made.parent.iterdir():
        file.rename(folder / file.name)
    return "auto-round"


@pytest.mark.parametrize("write", [torchao_int4, compressed_tensors_int4, auto_round_int4])
async def test_both_loops_decode_it_alike(tmp_path: Path, write: Any) -> None:
    kernel = write(tmp_path)
    ready, answer = await loaded(tmp_path, "auto")
    _, reference = await loaded(tmp_path, "generate")
    assert kernel in ready.model_info.kernel
    assert (answer.output_tokens, answer.reason) == (MOST, "length")
    assert answer.text == reference.text
