"""What a variant will need before it is loaded: weights, KV cache, activations, runtime, peak.

Weights and KV cache follow from the model's files and are meant to be right within 5 %. The rest is
an allowance, and said to be one: no file tells what a CUDA context or a library takes.
"""

from __future__ import annotations

from dataclasses import dataclass

from quantchat.common.memory_rules import bucket
from quantchat.estimate.architecture import Architecture, read_architecture
from quantchat.estimate.model_files import DTYPE_BYTES, ModelFiles
from quantchat.estimate.weights import Weights, loaded_dtype, not_quantized, unpacked, weights
from quantchat.profile.model import AnyVariant, AutoGptq, BitsAndBytes, Gptq, Transformers

CUDA_CONTEXT = 500_000_000
"""Bytes a process holds on a GPU for context and kernels, about: differs by driver and GPU."""

LIBRARIES = {
    "transformers": 460_000_000,
    "bitsandbytes": 500_000_000,
    "gptq": 650_000_000,
    "auto-gptq": 410_000_000,
}
"""Resident bytes of a worker that has loaded an engine's libraries and nothing else: measured on
Linux with torch 2.13, transformers 5.23, bitsandbytes 0.50 and gptqmodel 7.6."""

PREFILL_TOKENS = 512
"""Prompt tokens computed at once, at most, but by `generate`: `CHUNK` of `worker/decode/own.py`."""


@dataclass(frozen=True)
class Estimate:
    """The memory of one variant, in bytes; on a GPU of the device, on the CPU of the process."""

    cuda: bool
    dtype: str
    """Of what is not quantized, of activations and of the KV cache."""
    weights: int
    overhead: dict[str, int]
    """What of the weights is the quantization's own: scales, zeros, codebook, indices."""
    unquantized: int
    """What of the weights is not quantized."""
    context_tokens: int
    """Tokens of prompt and answer that the KV cache is reckoned for."""
    kv_cache: int
    """-1 where the config does not tell."""
    activations: int
    """An allowance: while a prompt is computed."""
    runtime: int
    """An allowance: the CUDA context, or on the CPU the interpreter with its libraries."""
    loading: int
    """An allowance: what is held beyond the weights while they are being loaded."""

    @property
    def total(self) -> int:
        """Loaded, and at the end of a context of `context_tokens`."""
        return self.runtime + self.weights + max(0, self.kv_cache) + self.activations

    @property
    def peak(self) -> int:
        """The most, while it is loading or after."""
        return max(self.total, self.runtime + self.weights + self.loading)


def estimate(
    spec: AnyVariant,
    files: ModelFiles,
    *,
    cuda: bool,
    tokens: int,
    repacked: bool = False,
) -> Estimate:
    """What `spec` will need, made from `files`, for `tokens` of prompt and answer.

    `cuda`: on a GPU, else on the CPU. `repacked`: this processor has AVX512-BF16, for which
    bitsandbytes lays its 4-bit weights out anew.
    """
    held = weights(spec, files, cuda=cuda, repacked=repacked)
    shape = read_architecture(files.config)
    tokens = _within_context(shape, tokens)
    dtype = loaded_dtype(spec, files, cuda)
    size = DTYPE_BYTES[dtype]
    return Estimate(
        cuda=cuda,
        dtype=dtype,
        weights=held.total,
        overhead=held.overhead,
        unquantized=held.plain,
        context_tokens=tokens,
        kv_cache=shape.kv_cache(tokens, _allocated(spec, tokens)) * size if shape else -1,
        activations=_activations(spec, shape, held, tokens, size),
        runtime=CUDA_CONTEXT if cuda else LIBRARIES[spec.engine],
        loading=_loading(spec, files, held, cuda, size),
    )


def notes(
    spec: AnyVariant, files: ModelFiles, tokens: int, *, cuda: bool = True, repacked: bool = False
) -> list[str]:
    """What must be known of an estimate from these files for `tokens`, one line each.

    `cuda` and `repacked` are as for `estimate`.
    """
    found = []
    shape = read_architecture(files.config)
    if shape is None:
        found.append("config.json does not tell the layers and heads: no KV cache is reckoned")
    elif (taken := _within_context(shape, tokens)) < tokens:
        found.append(f"the model's context is {taken} tokens: reckoned for these, not for {tokens}")
    made = files.quantization is not None
    if left := not_quantized(spec, files, repacked and not cuda):
        found.append(left)
    if method := unpacked(spec, files, cuda):
        held = weights(spec, files, cuda=cuda, repacked=repacked).total
        found.append(
            f"{method} is dequantized to {loaded_dtype(spec, files, cuda)} when it is loaded:"
            f" {held / 1e9:.1f} GB, not {files.bytes / 1e9:.1f} GB"
        )
    if isinstance(spec, Gptq | AutoGptq) and spec.quantize and not made:
        base = sum(tensor.elements for tensor in files.tensors.values())
        size = DTYPE_BYTES[loaded_dtype(spec, files, cuda=True)] * base
        found.append(
            f"to be made first, from the base: {size / 2**30:.1f} GiB while that is loaded"
        )
    return found


def _within_context(shape: Architecture | None, tokens: int) -> int:
    """How many of `tokens` the model takes; all, where its context is not known."""
    return min(tokens, shape.context_length) if shape and shape.context_length else tokens


def _allocated(spec: AnyVariant, tokens: int) -> int:
    """Tokens the KV cache is allocated for: with `generate`, and transformers 4, what it holds."""
    plain = spec.decode == "generate" or isinstance(spec, AutoGptq)
    return tokens if plain else bucket(tokens)


def _activations(
    spec: AnyVariant,
    shape: Architecture | None,
    held: Weights,
    tokens: int,
    size: int,
) -> int:
    # A prompt's products with 4-bit weights are dense ones: a matrix at a time is dequantized.
    dense = held.largest * size if held.packed else 0
    if shape is None:
        return dense
    chunk = tokens if spec.decode == "generate" else min(tokens, PREFILL_TOKENS)
    # Eager attention writes its scores out, and the softmax of them; the others do not.
    scores = 2 * shape.heads * chunk * tokens if spec.attention == "eager" else 0
    return dense + (shape.activations(chunk) + scores) * size


def _loading(
    spec: AnyVariant,
    files: ModelFiles,
    held: Weights,
    cuda: bool,
    size: int,
) -> int:
    if not cuda:
        # safetensors maps the files: their pages are resident until the system wants them back.
        if isinstance(spec, Transformers):
            # Those pages are the weights; of a GGUF file one tensor at a time is dequantized to
            # float32, and copied.
            return 2 * 4 * held.largest if spec.gguf_file else 0
        return files.bytes if isinstance(spec, BitsAndBytes) else held.total
    # GPTQ's kernels unpack a matrix to int32 to pack it anew; bitsandbytes quantizes one at a time.
    return held.largest * (4 if isinstance(spec, Gptq) else size)
