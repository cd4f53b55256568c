"""A model's config and tensor headers, read from its files without loading weights."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from quantchat.common.gguf import BY_NAME
from quantchat.common.model_folder import CONFIG, ModelFolder

_BITS = {
    "F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16,
    "I16": 16, "U16": 16, "I8": 8, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4, "C64": 64,
}  # fmt: skip
"""Key: safetensors' name of a dtype; value: bits per element."""

EMBEDDING = re.compile(r"(?:^|\.)(?:embed\w*|word_embeddings|wte|wpe|tok_embeddings)\.weight$")
HEAD = re.compile(r"(?:^|\.)(?:lm_head|embed_out)\.weight$")
"""Patterns of the tensor names of embeddings (`EMBEDDING`) and output head (`HEAD`)."""

DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}

FLOATS = {"F64", "F32", "F16", "BF16"}

_TORCH = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class TensorInfo:
    """A tensor as the header of a safetensors or GGUF file describes it."""

    dtype: str
    """The dtype by the name of safetensors, e.g. `BF16`, or of GGML, e.g. `Q4_K`."""
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Count of elements; 1 for a scalar."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Size in the file in bytes; an unknown dtype counts as 16 bits per element."""
        if self.dtype not in _BITS and (block := BY_NAME.get(self.dtype)):
            return -(-self.elements // block.weights) * block.bytes
        return self.elements * _BITS.get(self.dtype, 16) // 8


@dataclass(frozen=True)
class ModelFiles:
    """The config, tensor headers and file names of a model."""

    config: Mapping[str, Any]
    """The parsed `config.json`."""
    tensors: Mapping[str, TensorInfo]
    """The tensors by name, from the headers of all weight files. An output head that is only a copy
    of its tied embedding is left out."""
    others: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The other JSON files that `ModelFolder` needs, parsed, by file name."""
    names: frozenset[str] = field(default_factory=frozenset)
    """Names of all files of the model."""
    draft: ModelFiles | None = None
    """The files of the model that drafts tokens for this model; None without such a model."""

    @property
    def folder(self) -> ModelFolder:
        """The model's folder, for the checks that loaders too make before they load weights."""
        return ModelFolder({CONFIG: self.config, **self.others}, self.names)

    @property
    def embeddings(self) -> list[str]:
        """Names of the embeddings' tensors."""
        return [name for name in self.tensors if EMBEDDING.search(name)]

    @property
    def tied_heads(self) -> list[str]:
        """Names of the output heads in the files; empty if the config does not tie embeddings."""
        tied = any(config.get("tie_word_embeddings") is True for config in self.configs)
        return [name for name in self.tensors if tied and HEAD.search(name)]

    @property
    def bytes(self) -> int:
        """Total size of the tensors in the files in bytes."""
        return sum(tensor.bytes for tensor in self.tensors.values())

    @property
    def quantization(self) -> Mapping[str, Any] | None:
        """The quantization config of a quantized checkpoint; None in full precision."""
        return self.folder.quantization

    @property
    def configs(self) -> tuple[Mapping[str, Any], ...]:
        """The config and, for a multimodal model, the config of its text part."""
        text = self.config.get("text_config")
        return (self.config, text) if isinstance(text, Mapping) else (self.config,)

    @property
    def vocabulary(self) -> int | None:
        """Size of the vocabulary in tokens; None if the config does not give it."""
        named = (config.get("vocab_size") for config in self.configs)
        return next((size for size in named if type(size) is int), None)

    @property
    def dtype(self) -> str | None:
        """The dtype that the config states, by torch's name; None if it states none."""
        named = (config.get(key) for config in self.configs for key in ("dtype", "torch_dtype"))
        return next((str(dtype) for dtype in named if str(dtype) in DTYPE_BYTES), None)

    @property
    def commonest_float(self) -> str:
        """The float dtype of most elements, by torch's name; float32 if no tensor has one."""
        sizes: Counter[str] = Counter()
        for tensor in self.tensors.values():
            sizes[_TORCH.get(tensor.dtype, "")] += tensor.elements
        return next((name for name, _ in sizes.most_common() if name), "float32")
