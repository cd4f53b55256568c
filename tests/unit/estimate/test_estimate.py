"""What a variant will need, against figures that are published or worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fakes.model_folder import LLAMA_2_7B, gptq_tensors, llama_tensors, write_model
from quantchat.checkpoints.headers import read_folder
from quantchat.engines.bitsandbytes import BitsAndBytes
from quantchat.engines.gptq import Gptq
from quantchat.engines.memory import CUDA_CONTEXT, PREFILL_TOKENS, estimate, notes
from quantchat.engines.quantize import Quantize
from quantchat.engines.transformers import Transformers
from quantchat.estimate.memory import Estimate
from quantchat.estimate.model_files import ModelFiles, TensorInfo
from quantchat.profile.model import AnyVariant

LINEAR = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008)
"""Elements of Llama 2 7B's linear layers, the output head aside: 6.476e9."""
REST = 2 * (2 * 32000 * 4096 + 65 * 4096)
"""Bytes in fp16 of embedding, head and norms."""


def files(tensors: dict[str, Any], **config: Any) -> ModelFiles:
    return ModelFiles(
        {**LLAMA_2_7B, **config}, {name: TensorInfo(*one) for name, one in tensors.items()}
    )


BASE = files(llama_tensors(LLAMA_2_7B))


def bnb(**options: Any) -> BitsAndBytes:
    return BitsAndBytes(label="b", engine="bitsandbytes", model="m", **options)


def gptq(**options: Any) -> Gptq:
    return Gptq(label="g", engine="gptq", model="m", **options)


PLAIN = Transformers(label="t", engine="transformers", model="m")


def on_gpu(spec: AnyVariant, of: ModelFiles = BASE) -> Estimate:
    return estimate(spec, of, cuda=True, tokens=2048)


def test_full_precision() -> None:
    found = on_gpu(PLAIN)
    assert found.weights == 2 * LINEAR + REST == pytest.approx(13.5e9, rel=0.01)  # as published
    assert (found.overhead, found.dtype) == ({}, "float16")
    assert on_gpu(PLAIN.model_copy(update={"dtype": "float32"})).weights == 2 * found.weights


@pytest.mark.parametrize(
    ("double_quant", "bits"),
    [(False, 4 + 32 / 64), (True, 4 + 8 / 64 + 32 / (64 * 256))],  # QLoRA, section 3
)
def test_nf4(double_quant: bool, bits: float) -> None:
    found = on_gpu(bnb(double_quant=double_quant))
    assert found.weights == pytest.approx(LINEAR * bits / 8 + REST, rel=1e-3)
    assert found.unquantized == REST
    assert found.overhead["scales"] == pytest.approx(LINEAR * (bits - 4) / 8, rel=1e-3)
    # 224 layers, each with its own codebook, and with double quantization a second of 256.
    assert found.overhead["codebook"] == 224 * 4 * (16 + 256 * double_quant)


def test_nf4_repacked_for_the_processor() -> None:
    found = estimate(bnb(), BASE, cuda=False, tokens=2048, avx512_bf16=True)
    assert found.overhead["scales"] == 2 * LINEAR // 64
    # Only for the processor: on a GPU nothing changes.
    on_the_gpu = estimate(bnb(), BASE, cuda=True, tokens=2048, avx512_bf16=True)
    assert on_the_gpu == on_gpu(bnb())


def test_int8() -> None:
    found = on_gpu(bnb(quant_type="int8"))
    rows = 32 * (5 * 4096 + 2 * 11008)
    assert found.weights == LINEAR + 4 * rows + REST


def test_gptq_finished_and_to_be_made_are_the_same() -> None:
    config = {"bits": 4, "group_size": 128, "quant_method": "gptq"}
    finished = files(gptq_tensors(LLAMA_2_7B, 4, 128), quantization_config=config)
    found = on_gpu(gptq(), finished)
    assert found.weights == finished.bytes == pytest.approx(3.9e9, rel=0.01)  # the article's 3.9 GB
    assert found.overhead == {
        "scales": 2 * LINEAR // 128,
        "zeros": LINEAR // 128 // 2,
        "indices": 32 * 4 * (6 * 4096 + 11008),
    }
    to_make = gptq(quantize=Quantize(bits=4, group_size=128))
    assert on_gpu(to_make) == found
    (note,) = notes(to_make, BASE, 2048)
    assert "takes 12.6 GiB when loaded" in note
    assert notes(gptq(), finished, 2048) == []


def test_gptq_of_mixed_precision_counts_each_layer_by_its_own_width() -> None:
    tensors = gptq_tensors(LLAMA_2_7B, 4, 128)
    tensors["model.layers.0.mlp.down_proj.qweight"] = ("I32", (11008 * 8 // 32, 4096))
    mixed = files(tensors, quantization_config={"bits": 4})
    even = files(gptq_tensors(LLAMA_2_7B, 4, 128), quantization_config={"bits": 4})
    more = on_gpu(gptq(), mixed).weights - on_gpu(gptq(), even).weights
    assert more == 11008 * 4096 // 2 + 86 * 4096 // 2  # its zero points are wider too


def test_gptq_kernels_of_the_processor_keep_more() -> None:
    spec = gptq(quantize=Quantize(bits=4, group_size=128))
    scales = 2 * LINEAR // 128
    found = estimate(spec, BASE, cuda=False, tokens=1)
    assert (found.overhead["scales"], found.overhead["zeros"]) == (2 * scales, 2 * scales)
    three_bits = gptq(quantize=Quantize(bits=3, group_size=128))
    found = estimate(three_bits, BASE, cuda=False, tokens=1)
    assert found.overhead["scales"] == scales


def test_a_tied_head_is_counted_where_the_files_have_one_of_its_own() -> None:
    both = llama_tensors(LLAMA_2_7B)
    one = {name: tensor for name, tensor in both.items() if name != "lm_head.weight"}
    tied, untied = (files(tensors, tie_word_embeddings=True) for tensors in (one, both))
    assert on_gpu(PLAIN, untied).weights - on_gpu(PLAIN, tied).weights == 2 * 32000 * 4096


def test_a_finished_bitsandbytes_checkpoint_is_taken_as_it_lies() -> None:
    stem = "model.layers.0.mlp.down_proj.weight"
    tensors = {
        "model.embed_tokens.weight": ("F16", (100, 64)),
        stem: ("U8", (64 * 64 // 2, 1)),
        f"{stem}.absmax": ("U8", (64,)),
        f"{stem}.nested_absmax": ("F32", (1,)),
        f"{stem}.quant_map": ("F32", (16,)),
        f"{stem}.nested_quant_map": ("F32", (256,)),
        f"{stem}.quant_state.bitsandbytes__nf4": ("U8", (120,)),
    }
    found = on_gpu(bnb(), files(tensors, quantization_config={"quant_method": "bitsandbytes"}))
    assert found.overhead == {"scales": 64 + 4, "codebook": 4 * 272}
    assert found.weights == 2 * 6400 + 2048 + sum(found.overhead.values())


def test_experts_are_left_as_they_are() -> None:
    tensors = {
        "model.layers.0.mlp.experts.0.up_proj.weight": ("BF16", (256, 256)),
        "model.layers.0.mlp.shared_experts.up_proj.weight": ("BF16", (256, 256)),
        "model.layers.0.self_attn.q_proj.weight": ("BF16", (256, 256)),
    }
    mixture = files(tensors)
    assert on_gpu(bnb(), mixture).unquantized == 2 * 256 * 256
    assert "experts" in notes(bnb(), mixture, 2048)[0]


def test_totals() -> None:
    found = on_gpu(bnb())
    assert found.kv_cache == 2048 * 524_288
    assert found.runtime == CUDA_CONTEXT
    parts = found.weights + found.kv_cache + found.activations + found.runtime
    assert found.total == parts
    assert found.peak >= found.total
    assert estimate(bnb(), BASE, cuda=True, tokens=10**6).context_tokens == 4096
    eager = estimate(bnb(attention="eager"), BASE, cuda=True, tokens=2048)
    assert eager.activations - found.activations == 2 * 2 * 32 * PREFILL_TOKENS * 2048


def test_a_config_that_tells_nothing_is_said_so(tmp_path: Path) -> None:
    write_model(tmp_path, {}, llama_tensors(LLAMA_2_7B))
    found = read_folder(tmp_path)
    assert estimate(PLAIN, found, cuda=True, tokens=10).kv_cache == -1
    assert "no KV cache" in notes(PLAIN, found, 2048)[0]


def test_more_than_the_models_context_is_said_not_to_be_reckoned() -> None:
    asked = estimate(PLAIN, BASE, cuda=True, tokens=99_999)
    assert asked.context_tokens == LLAMA_2_7B["max_position_embeddings"]
    (note,) = notes(PLAIN, BASE, 99_999)
    assert f"context is {asked.context_tokens} tokens" in note
    assert "not 99999" in note
    assert notes(PLAIN, BASE, asked.context_tokens) == []


# ------------------------------------------------------------ what is not what it is called


def test_a_mixture_is_said_to_stay_as_it_is_and_by_how_much() -> None:
    tensors = {
        "model.embed_tokens.weight": ("BF16", (100, 100)),
        "model.layers.0.mlp.experts.gate_up_proj": ("BF16", (4, 100, 200)),
        "model.layers.0.mlp.router.weight": ("BF16", (4, 100)),
        "model.layers.0.self_attn.q_proj.weight": ("BF16", (96, 100)),
    }
    (note,) = notes(bnb(), files(tensors, torch_dtype="bfloat16"), 2048)
    assert note == ("experts not quantized: 90% of the weights, embeddings included, stay bfloat16")
    assert not notes(PLAIN, files(tensors), 2048)


@pytest.mark.parametrize(
    "name", ["model.layers.0.mixer.conv1d.weight", "model.visual.patch_embed.proj.weight"]
)
def test_a_dense_model_with_a_convolution_is_no_mixture(name: str) -> None:
    tensors = {**llama_tensors(LLAMA_2_7B), name: ("F16", (64, 1, 4))}
    assert not notes(bnb(), files(tensors), 2048)


def test_a_tower_that_sees_is_left_as_it_is() -> None:
    tensors = {
        "model.visual.blocks.0.attn.qkv.weight": ("BF16", (64, 64)),
        "model.language_model.layers.0.self_attn.q_proj.weight": ("BF16", (64, 64)),
    }
    seeing = files(tensors, text_config={"hidden_size": 64})
    assert on_gpu(bnb(), seeing).unquantized == 2 * 64 * 64
    assert "image and audio parts not quantized: 50%" in notes(bnb(), seeing, 2048)[-1]


def test_what_bitsandbytes_does_not_take_is_planned_in_full() -> None:
    tensors = {"transformer.h.0.mlp.dense_h_to_4h.weight": ("BF16", (64, 64))}
    own = files(tensors, model_type="falcon")
    assert on_gpu(bnb(), own).weights == 2 * 64 * 64
    assert "not quantized: 100%" in notes(bnb(), own, 2048)[-1]


@pytest.mark.parametrize("shape", [(33, 64), (32, 96)])
def test_a_width_that_cannot_be_repacked_keeps_its_layout(shape: tuple[int, int]) -> None:
    odd = files({"model.layers.0.mlp.gate_proj.weight": ("BF16", shape)})
    on_cpu = estimate(bnb(), odd, cuda=False, tokens=8, avx512_bf16=True)
    assert on_cpu.unquantized == 0
    assert on_cpu.overhead == estimate(bnb(), odd, cuda=True, tokens=8).overhead


def test_what_is_unpacked_is_planned_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    eight = files(
        {
            "model.layers.0.mlp.up_proj.weight": ("F8_E4M3", (128, 128)),
            "model.layers.0.mlp.up_proj.weight_scale_inv": ("F32", (1, 1)),
        },
        torch_dtype="bfloat16",
        quantization_config={"quant_method": "fp8"},
    )
    assert on_gpu(PLAIN, eight).weights == 128 * 128 + 4
    assert estimate(PLAIN, eight, cuda=False, tokens=8).weights == 2 * 128 * 128
    (note,) = notes(PLAIN, eight, 8, cuda=False)
    assert note.startswith("fp8 is dequantized to bfloat16")
    for capability, bytes_ in (((8, 6), 2), ((8, 9), 1), ((9, 0), 1), ((10, 0), 1)):
        planned = estimate(PLAIN, eight, cuda=True, tokens=8, capability=capability)
        assert planned.weights // (128 * 128) == bytes_
        assert len(notes(PLAIN, eight, 8, capability=capability)) == bytes_ - 1
    four = files(
        {
            "model.layers.0.mlp.experts.down_proj_blocks": ("U8", (4, 64, 2, 16)),
            "model.layers.0.mlp.experts.down_proj_scales": ("U8", (4, 64, 2)),
            "model.norm.weight": ("BF16", (64,)),
        },
        torch_dtype="bfloat16",
        quantization_config={"quant_method": "mxfp4"},
    )
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name != "kernels")
    assert on_gpu(PLAIN, four).weights == 2 * (2 * 4 * 64 * 32 + 64)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: True)
    assert on_gpu(PLAIN, four).weights == 4 * 64 * 34 + 128
    assert not notes(PLAIN, four, 8)
    assert "mxfp4 is dequantized" in notes(PLAIN, four, 8, capability=(7, 0))[0]
