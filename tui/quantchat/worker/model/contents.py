"""Count which weights of a loaded model are quantized, and describe the result in words.

The model's quantization config does not show that. bitsandbytes quantizes only plain linear layers
and skips the experts of a mixture of experts. transformers dequantizes formats for which it has no
kernel, and reports that only in its log.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quantchat.worker.memory import TensorBytes, is_subclass
from quantchat.worker.model.devices import weights_on_disk

_REPORTED_SHARE = 0.05
"""The share of unquantized weights (embeddings not counted) is reported if it is at least this."""

_UNPACKED = 1.25
"""Weights count as unpacked if they take at least this many times the bits of their format in
memory. (Packed 3-bit weights, ten in a 32-bit word, take 1.07 times the bits of their format.)"""

_EMBEDDINGS, _EXPERTS, _LAYERS = "embeddings", "experts", "layers"
_TOWERS = "image and audio parts"
"""Parts of a model, as shown to the user; `layers` are all other weights."""

_FLOATS = ("float64", "float32", "float16", "bfloat16")
_PACKED = {"uint8": 2, "int32": 8}
"""Key: the dtype of a tensor of packed 4-bit weights; value: the number of weights per element."""


@dataclass
class Contents:
    """Numbers of quantized and unquantized weights of a model.

    A weight is one number of the trained model: a tensor with packed weights counts as many as it
    holds. "Unquantized weights" are those in matrices; vectors are counted separately.
    """

    quantized: int = 0
    """Number of quantized weights."""
    kernels: Counter[str] = field(default_factory=Counter)
    """Number of quantized weights, by the class of the module (and tensor) that holds them."""
    plain: Counter[str] = field(default_factory=Counter)
    """Number of unquantized weights, by part of the model."""
    dtypes: Counter[str] = field(default_factory=Counter)
    """Number of unquantized weights, by dtype."""
    linears: Counter[str] = field(default_factory=Counter)
    """Number of unquantized weights in the part `layers`, by the class of their module."""
    plain_bytes: int = 0
    """Bytes of the unquantized weights, of vectors (norms, biases) and of buffers of floats."""
    vectors: int = 0
    """Number of weights in vectors, which no method quantizes."""

    @classmethod
    def of(cls, model: Any) -> Contents:
        """Count the weights of `model`, a transformers model."""
        found = cls()
        ends = [model.get_input_embeddings(), model.get_output_embeddings()]
        ends = [id(module.weight) for module in ends if hasattr(module, "weight")]
        inside = _decoder_prefix(model)
        seen: set[int] = set()
        for name, module in model.named_modules():
            if layer := _packed_layer(module):
                found._add_quantized(type(module).__name__, layer)
                continue
            for buffer in module._buffers.values():
                if buffer is not None and _dtype(buffer) in _FLOATS:
                    found.plain_bytes += buffer.nbytes
            for key, tensor in module._parameters.items():
                if tensor is None or id(tensor) in seen:
                    continue
                seen.add(id(tensor))
                if count := _packed_weights(module, tensor):
                    found._add_quantized(_holder(module, tensor), count)
                elif _dtype(tensor) in _FLOATS:
                    found.plain_bytes += tensor.nbytes
                    if tensor.dim() > 1:
                        part = _part_of(f"{name}.{key}", id(tensor) in ends, inside)
                        found._add_plain(part, module, tensor)
                    else:
                        found.vectors += tensor.numel()
        return found

    @property
    def weights(self) -> int:
        """Number of all weights of the trained model."""
        return self.quantized + self.plain.total() + self.vectors

    @property
    def kernel(self) -> str:
        """The key of `kernels` with the most weights; empty if no weights are quantized."""
        return next((name for name, _ in self.kernels.most_common(1)), "")

    @property
    def share_plain(self) -> float:
        """Share of unquantized weights; embeddings, output head and vectors are not counted."""
        body = self.plain.total() - self.plain[_EMBEDDINGS]
        return body / max(1, body + self.quantized)

    def not_quantized(self) -> str:
        """Return e.g. `experts not quantized: 91% of the weights are bfloat16`.

        Empty if `share_plain` is below 5 %, or if no weights are quantized at all.
        """
        if not self.quantized or self.share_plain < _REPORTED_SHARE:
            return ""
        body = {part: count for part, count in self.plain.items() if part != _EMBEDDINGS}
        most = sorted(body, key=lambda part: -body[part])
        parts = [part for part in most if body[part] > 0.1 * sum(body.values())]
        return f"{' and '.join(parts)} not quantized: {self._plain_share()}"

    def dequantized_contents(self, tensors: TensorBytes, promised: float) -> str:
        """Return e.g. `weights of 4 bits take 8.0 bits each`; empty if the weights are packed.

        `promised` is the number of bits per quantized weight in the format, without scales and zero
        points; 0 if unknown. `tensors` are the tensors of the same model.
        """
        packed = tensors.by_dtype.total() - tensors.overhead.total() - self.plain_bytes
        bits = 8 * packed / max(1, self.quantized)
        if not self.quantized or not promised or bits < _UNPACKED * promised:
            return ""
        return f"weights of {promised:g} bits take {bits:.1f} bits each"

    def _plain_share(self) -> str:
        whole = self.plain.total() + self.quantized
        dtype = self.dtypes.most_common(1)[0][0] if self.dtypes else "none"
        share = f"{self.plain.total() / max(1, whole):.0%} of the weights"
        return f"{share}{', embeddings included,' if self.plain[_EMBEDDINGS] else ''} are {dtype}"

    def _add_quantized(self, kernel: str, count: int) -> None:
        self.quantized += count
        self.kernels[kernel] += count

    def _add_plain(self, part: str, module: Any, tensor: Any) -> None:
        self.plain[part] += tensor.numel()
        self.dtypes[str(tensor.dtype).removeprefix("torch.")] += tensor.numel()
        if part == _LAYERS:
            self.linears[type(module).__name__] += tensor.numel()


def label(kernel: str, contents: Contents) -> str:
    """Return `kernel`, with its share of the weights if many other weights are not quantized."""
    if not contents.not_quantized():
        return kernel
    whole = contents.plain.total() + contents.quantized
    return f"{kernel}, on {contents.quantized / whole:.0%} of the weights"


def unpacked(model: Any, method: str, folder: str, gguf: str = "") -> tuple[str, str]:
    """Return the label of the kernel and a note for a model that was dequantized during loading.

    `method` is the model's quantization method, `folder` holds its files, and `gguf` is the name of
    its GGUF file, empty if it has none.
    """
    dtype = str(model.dtype).removeprefix("torch.")
    in_memory = TensorBytes.of(model).by_dtype.total()
    stored = (Path(folder) / gguf).stat().st_size if gguf else weights_on_disk(folder)
    note = f"dequantized to {dtype}: {_size(in_memory)}, not {_size(stored)}"
    return f"{method}, dequantized to {dtype}", note


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _decoder_prefix(model: Any) -> str:
    """Return the prefix of the names of modules in the text decoder.

    Empty if the model has no other parts, such as a vision tower.
    """
    if model.config.get_text_config() is model.config:
        return ""
    try:
        decoder = model.get_decoder()
    except (AttributeError, TypeError, NotImplementedError):
        return ""
    return next((f"{name}." for name, module in model.named_modules() if module is decoder), "")


def tower_linears(model: Any) -> Iterator[str]:
    """Yield the names of the linear layers in the vision and audio towers of `model`."""
    import torch

    inside, head = _decoder_prefix(model), model.get_output_embeddings()
    for name, module in model.named_modules():
        linear = isinstance(module, torch.nn.Linear) and module is not head
        if inside and linear and not f"{name}.".startswith(inside):
            yield name


def _part_of(name: str, embeds: bool, inside: str) -> str:
    if embeds or "embed" in name.rpartition(".layers.")[2]:
        return _EMBEDDINGS
    if inside and not name.startswith(inside):
        return _TOWERS
    return _EXPERTS if "expert" in name else _LAYERS


def _dtype(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _packed_layer(module: Any) -> int:
    """Return the number of weights if `module` is a GPTQ, AWQ or HQQ layer, else 0."""
    if not (hasattr(module, "qweight") or hasattr(module, "W_q")):
        return 0
    for wide, high in (("in_features", "out_features"), ("infeatures", "outfeatures")):
        if count := int(getattr(module, wide, 0) * getattr(module, high, 0)):
            return count
    return 0


def _packed_weights(module: Any, tensor: Any) -> int:
    """Return the number of quantized weights in `tensor`, a parameter of `module`; 0 if none."""
    if (state := getattr(tensor, "quant_state", None)) is not None:  # bitsandbytes
        return math.prod(state.shape)
    if is_subclass(tensor):  # torchao's subclass has the shape of the weight
        return int(tensor.numel()) if tensor.dim() > 1 else 0
    dtype = str(tensor.dtype).removeprefix("torch.")
    if tensor.dim() < 2 or dtype in _FLOATS:
        return 0
    if (shape := getattr(module, "weight_shape", None)) is not None:  # compressed-tensors
        return math.prod(int(n) for n in shape)
    if dtype == "uint8" and hasattr(module, "in_features"):  # BitNet
        return int(module.in_features * module.out_features)
    return int(tensor.numel()) * _PACKED.get(dtype, 1)


def _holder(module: Any, tensor: Any) -> str:
    name = type(module).__name__
    return f"{name} of {type(tensor).__name__}" if is_subclass(tensor) else name
