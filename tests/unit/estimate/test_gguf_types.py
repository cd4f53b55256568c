"""The tensor types of a GGUF file that is yet to be made."""

from __future__ import annotations

from typing import get_args

import pytest

from quantchat.engines.quantize import GgufFormat
from quantchat.estimate.gguf_types import block_type, built_files
from quantchat.estimate.model_files import ModelFiles, TensorInfo

CONFIG = {"num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8}


def types(width: int, form: str, *, tied: bool) -> dict[str, str]:
    """Return the types of a model whose layers have the width `width`."""
    names = ["model.embed_tokens.weight", "model.layers.0.self_attn.v_proj.weight"]
    names += ["model.layers.3.self_attn.v_proj.weight", *([] if tied else ["lm_head.weight"])]
    tensors = {name: TensorInfo("BF16", (64, width)) for name in names}
    tensors["model.norm.weight"] = TensorInfo("BF16", (width,))
    built = built_files(ModelFiles(CONFIG, tensors), form)
    return {name: tensor.dtype for name, tensor in built.tensors.items()}


def test_the_head_and_some_layers_get_more_bits() -> None:
    assert types(512, "q4_k_m", tied=False) == {
        "model.embed_tokens.weight": "Q4_K",
        "model.layers.0.self_attn.v_proj.weight": "Q6_K",
        "model.layers.3.self_attn.v_proj.weight": "Q4_K",
        "lm_head.weight": "Q6_K",
        "model.norm.weight": "F32",
    }
    assert types(512, "q4_0", tied=True)["model.embed_tokens.weight"] == "Q6_K"
    assert types(512, "q8_0", tied=True)["model.embed_tokens.weight"] == "Q8_0"


def test_a_width_that_no_block_divides_gets_another_type() -> None:
    found = types(96, "q4_k_m", tied=False)
    assert found["lm_head.weight"] == "Q8_0"
    assert found["model.layers.3.self_attn.v_proj.weight"] == "Q5_0"
    assert set(types(40, "q4_k_m", tied=True).values()) == {"BF16", "F32"}


@pytest.mark.parametrize("form", get_args(GgufFormat))
def test_the_types_are_those_of_auto_round(form: str) -> None:
    module = "auto_round.export.export_to_gguf.gguf_dtype"
    its = pytest.importorskip(module, reason="auto-round is not installed")
    names = {
        "self_attn.q_proj": "attn_q",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.down_proj": "ffn_down",
    }
    layers = CONFIG["num_hidden_layers"]
    selector = its.GGUFDTypeSelector(CONFIG, its.gguf_format_to_ftype(f"gguf:{form}"), None, layers)
    for layer in range(layers):
        for name, gguf in names.items():
            theirs = selector.select_qtype(f"blk.{layer}.{gguf}.weight", 2, layer).name
            ours = block_type(form, f"model.layers.{layer}.{name}.weight", layer, layers, 4)
            assert ours == theirs, (layer, name)
