"""Notes of a loaded variant on weights that libraries load differently from their label."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fakes.tiny_folder import tiny_folder, tokenizer
from quantchat.wire.messages import LoadModel
from quantchat.wire.variant import ModelInfo
from quantchat.worker.loaders import load

NF4 = {"quant_type": "nf4", "double_quant": False, "compute_dtype": "auto"}


def model_info(engine: str, folder: Path, options: dict[str, Any]) -> ModelInfo:
    """Load a model as a worker does, compute one token, and return what it says of itself."""
    found = load(LoadModel(engine, str(folder), options, device="cpu"), lambda stage: None)
    with torch.inference_mode():
        found.model(torch.tensor([[1, 2, 3]]))
    return found.model_info("eager")


def test_experts_under_bitsandbytes(tmp_path: Path) -> None:
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        vocab_size=97, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, num_local_experts=4, pad_token_id=0,
    )  # fmt: skip
    MixtralForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    found = model_info("bitsandbytes", tmp_path, NF4)
    assert found.format_deviation.startswith("experts not quantized: 9")
    assert found.format_deviation.endswith("of the weights, embeddings included, are bfloat16")
    assert 14 < found.bits_per_weight < 16


@pytest.mark.parametrize("width", [96, 120, 128])
def test_a_dense_model_under_bitsandbytes_is_as_promised(tmp_path: Path, width: int) -> None:
    """So are layers whose width keeps them from being repacked on a processor with AVX512-BF16."""
    folder = tiny_folder(tmp_path, vocab_size=97, intermediate_size=width)
    found = model_info("bitsandbytes", folder, NF4)
    assert found.format_deviation == "" and 4.5 < found.bits_per_weight < 8


def test_fp8_on_a_processor(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path, hidden_size=128, intermediate_size=256, head_dim=32)
    weights = load_file(folder / "model.safetensors")
    for name in [name for name in weights if name.endswith("_proj.weight")]:
        weights[name] = weights[name].to(torch.float8_e4m3fn)
        blocks = [-(-size // 128) for size in weights[name].shape]
        weights[f"{name}_scale_inv"] = torch.ones(blocks)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    file = folder / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    told = {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}
    file.write_text(json.dumps({**config, "dtype": "bfloat16", "quantization_config": told}))
    found = model_info("transformers", folder, {})
    assert found.kernel == "fp8, dequantized to bfloat16"
    assert found.format_deviation.startswith("dequantized to bfloat16: ")
    assert found.bits_per_weight == pytest.approx(16, rel=0.02)


@pytest.mark.parametrize(("bits", "told"), [(4, "weights of 4 bits take 8.0 bits each"), (8, "")])
def test_weights_that_a_kernel_unpacked(bits: int, told: str, tmp_path: Path) -> None:
    pytest.importorskip("torchao")
    options = {"quant_type": "int8", "group_size": None}
    folder = tiny_folder(tmp_path, hidden_size=128, intermediate_size=256, head_dim=32)
    found = load(LoadModel("torchao", str(folder), options, device="cpu"), lambda stage: None)
    found._bits = bits
    assert found.model_info("eager").format_deviation == told
