"""Writes checkpoints with the layer sizes (the *shape*) of a known model and random weights.

Speed and memory do not depend on the values of the weights, so a benchmark needs only a shape and
downloads nothing. The files are those that transformers and GPTQModel write: sharded safetensors
with an index, `config.json`, and for GPTQ the packed layers of format `gptq`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

CONTEXT = 16384
"""Longest context of each shape in tokens. Some of the original models have a shorter one, but
prompts of 8k tokens are measured on all shapes, and the cost of a token is the same."""

SHARD_BYTES = 2 * 2**30
SPREAD = 0.02
"""Standard deviation of the random weights, as in the initialisation of the original models."""

ZERO_POINT_LESS = 1
"""Format `gptq` stores each zero point minus one."""


@dataclass(frozen=True)
class Shape:
    """The layer sizes of a Llama model."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    rope_theta: float = 10000.0

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden // self.heads

    def linears(self) -> Iterator[tuple[str, int, int]]:
        """Yield name, output width and input width of each linear layer that is quantized."""
        keys = self.kv_heads * self.head_size
        for layer in range(self.layers):
            for name, out, width in (
                ("self_attn.q_proj", self.hidden, self.hidden),
                ("self_attn.k_proj", keys, self.hidden),
                ("self_attn.v_proj", keys, self.hidden),
                ("self_attn.o_proj", self.hidden, self.hidden),
                ("mlp.gate_proj", self.intermediate, self.hidden),
                ("mlp.up_proj", self.intermediate, self.hidden),
                ("mlp.down_proj", self.hidden, self.intermediate),
            ):
                yield f"model.layers.{layer}.{name}", out, width

    def size(self, bits: int, group: int) -> int:
        """Return the bytes of all tensors.

        They are GPTQ with `bits` bits and group size `group`, or bfloat16 if `bits` is 0.
        """
        total = 2 * self.hidden * (2 * self.vocabulary + 2 * self.layers + 1)
        for _, out, width in self.linears():
            if bits:
                scales = width // group * out * (2 + bits / 8)  # and zero points
                total += int(out * width * bits / 8 + scales) + 4 * width  # and g_idx
            else:
                total += 2 * out * width
        return total

    def config(self, dtype: str) -> dict[str, Any]:
        """Return the content of `config.json`."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "dtype": dtype,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_size,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": CONTEXT,
            "rms_norm_eps": 1e-5,
            "rope_parameters": {"rope_type": "default", "rope_theta": self.rope_theta},
            "tie_word_embeddings": False,
            "hidden_act": "silu",
            "bos_token_id": 0,
            "eos_token_id": 1,
        }


SHAPES = {
    "llama-2-7b": Shape(4096, 11008, 32, 32, 32, 32000),
    "llama-2-13b": Shape(5120, 13824, 40, 40, 40, 32000),
    "llama-3.1-8b": Shape(4096, 14336, 32, 32, 8, 128256, 500000.0),
    "small": Shape(512, 1536, 4, 8, 4, 1024),
}
"""Llama 2 (Touvron et al. 2023), Llama 3.1 (Grattafiori et al. 2024), and a small one for CPUs."""


def write_dense(folder: Path, shape: Shape) -> None:
    """Write a bfloat16 checkpoint of `shape` into the empty `folder`.

    The bf16 and the bitsandbytes variants load it.
    """
    linears = ((f"{name}.weight", (out, width)) for name, out, width in shape.linears())
    tensors = ((name, _normal(size)) for name, size in linears)
    _write(folder, shape, "bfloat16", {}, _both(_unquantized(shape, torch.bfloat16), tensors))


def write_gptq(folder: Path, shape: Shape, bits: int, group: int) -> None:
    """Write a symmetric GPTQ checkpoint of `shape` with `bits` bits into the empty `folder`."""
    quantization = {
        "quant_method": "gptq",
        "bits": bits,
        "group_size": group,
        "desc_act": False,
        "sym": True,
        "lm_head": False,
        "pack_dtype": "int32",
        "format": "gptq",
        "checkpoint_format": "gptq",
        "meta": {"quantizer": ["gptqmodel:7.6.0"]},
    }
    tensors = _both(_unquantized(shape, torch.float16), _packed(shape, bits, group))
    _write(folder, shape, "float16", {"quantization_config": quantization}, tensors)
    (folder / "quantize_config.json").write_text(json.dumps(quantization), encoding="utf-8")


# ------------------------------------------------------------ tensors


def _unquantized(shape: Shape, dtype: torch.dtype) -> Iterator[tuple[str, torch.Tensor]]:
    table = (shape.vocabulary, shape.hidden)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        yield name, _normal(table).to(dtype)
    norms = ["model.norm"]
    for layer in range(shape.layers):
        norms += [
            f"model.layers.{layer}.{place}_layernorm" for place in ("input", "post_attention")
        ]
    for name in norms:
        yield f"{name}.weight", torch.ones(shape.hidden, dtype=dtype)


def _packed(shape: Shape, bits: int, group: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the four GPTQ tensors of each linear layer.

    They are packed as `QuantLinear.pack` of Frantar et al. 2022 does.
    """
    levels = 2**bits
    zeros = pack([levels // 2 - ZERO_POINT_LESS] * 32, bits)
    scale = SPREAD / (levels / 4)
    for name, out, width in shape.linears():
        groups = width // group
        any_bits = torch.randint(-(2**31), 2**31 - 1, (width * bits // 32, out), dtype=torch.int32)
        yield f"{name}.qweight", any_bits
        row = torch.tensor(zeros, dtype=torch.int32).repeat(out // 32)
        yield f"{name}.qzeros", row.repeat(groups, 1)
        yield f"{name}.scales", torch.full((groups, out), scale, dtype=torch.float16)
        yield f"{name}.g_idx", torch.arange(width, dtype=torch.int32) // group


def pack(values: list[int], bits: int) -> list[int]:
    """Pack 32 values of `bits` bits into `bits` signed 32-bit words, the lowest bits first."""
    whole = sum(value << (bits * place) for place, value in enumerate(values))
    words = [(whole >> (32 * word)) & (2**32 - 1) for word in range(bits)]
    return [word - 2**32 if word >= 2**31 else word for word in words]


_BLOCK: list[torch.Tensor] = []


def _normal(size: tuple[int, int]) -> torch.Tensor:
    """Return random bfloat16 weights, copied from one block of random numbers.

    To draw new numbers for each tensor would take minutes for 13B.
    """
    if not _BLOCK:
        _BLOCK.append((torch.randn(2**24 + 2**12) * SPREAD).to(torch.bfloat16))
    count = size[0] * size[1]
    start = int(torch.randint(2**12, ()))
    block = _BLOCK[0][start : start + 2**24]
    weights = torch.empty(count, dtype=torch.bfloat16)
    for part in weights.split(len(block)):
        part.copy_(block[: len(part)])
    return weights.view(size)


def _both(
    first: Iterator[tuple[str, torch.Tensor]], second: Iterator[tuple[str, torch.Tensor]]
) -> Iterator[tuple[str, torch.Tensor]]:
    yield from first
    yield from second


# ------------------------------------------------------------ files


def _write(
    folder: Path,
    shape: Shape,
    dtype: str,
    more: dict[str, Any],
    tensors: Iterator[tuple[str, torch.Tensor]],
) -> None:
    config = {**shape.config(dtype), **more}
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    places: dict[str, str] = {}
    shard: dict[str, torch.Tensor] = {}
    for name, tensor in tensors:
        shard[name] = tensor
        if sum(one.nbytes for one in shard.values()) >= SHARD_BYTES:
            _write_shard(folder, shard, places)
    if shard:
        _write_shard(folder, shard, places)
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    _write_tokenizer(folder, shape.vocabulary)


def _write_shard(folder: Path, shard: dict[str, torch.Tensor], places: dict[str, str]) -> None:
    file = f"model-{len(set(places.values())) + 1:05d}.safetensors"
    save_file(shard, folder / file, metadata={"format": "pt"})
    places.update(dict.fromkeys(shard, file))
    shard.clear()


def _write_tokenizer(folder: Path, vocabulary: int) -> None:
    """Write a tokenizer with a token for each byte and placeholders for the other token ids."""
    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<s>", "</s>", *bytes_]
    tokens += [f"<{number}>" for number in range(len(tokens), vocabulary)]
    ids = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    body = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "model_max_length": CONTEXT,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(body), encoding="utf-8")
