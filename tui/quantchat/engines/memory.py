"""Estimate a variant's memory before it is loaded: weights, KV cache, activations and peak.

Weights and KV cache are computed from the model's files; the error should be below 5 %. The other
parts, such as the CUDA context and the libraries, are assumed sizes, because no file states them.
`estimate.memory.Estimate` says which parts are assumed.
"""

from __future__ import annotations

from quantchat.common.kv_cache import KV_CACHES
from quantchat.engines.engine import Capability
from quantchat.engines.registry import baseline, engine_of
from quantchat.engines.variant import VariantBase
from quantchat.estimate.architecture import Architecture, read_architecture
from quantchat.estimate.memory import Estimate
from quantchat.estimate.model_files import DTYPE_BYTES, ModelFiles
from quantchat.estimate.weights import Weights, dequantized

CUDA_CONTEXT = 500_000_000
"""Approximate bytes that a process uses on a GPU for CUDA context and kernels."""

PREFILL_TOKENS = 512
"""Most prompt tokens that quantchat's own loop computes at once (`CHUNK` of
`worker/decode/native_loop.py`). The decode mode `generate` may compute a prompt in one piece, which
the estimate assumes for that mode."""


def estimate(
    spec: VariantBase,
    files: ModelFiles,
    *,
    cuda: bool,
    tokens: int,
    avx512_bf16: bool = False,
    capability: Capability | None = None,
) -> Estimate:
    """Return the memory estimate of `spec`, loaded from `files`, for `tokens` of prompt and answer.

    `cuda` says that the model runs on a GPU, else on the CPU. `avx512_bf16` says that this
    processor has the AVX512-BF16 instructions, for which bitsandbytes repacks 4-bit weights.
    `capability` is the compute capability of the GPU, if it is known.
    """
    engine = engine_of(spec)
    dtype = engine.loaded_dtype(spec, files, cuda=cuda)
    element_bytes = DTYPE_BYTES[dtype]
    if engine.dequantizes(spec, files, cuda=cuda, capability=capability):
        weights = dequantized(files.tensors, element_bytes)
    else:
        weights = engine.weights(spec, files, element_bytes, cuda=cuda, avx512_bf16=avx512_bf16)
    shape = read_architecture(files.config)
    tokens = _within_context(shape, tokens)
    return Estimate(
        cuda=cuda,
        dtype=dtype,
        weights=weights.total,
        overhead=weights.overhead,
        unquantized=weights.plain,
        context_tokens=tokens,
        kv_cache=_kv_cache(spec, shape, tokens, element_bytes) if shape else -1,
        activations=_activations(spec, shape, weights, tokens, element_bytes),
        runtime=CUDA_CONTEXT if cuda else engine.idle_worker_bytes,
        loading=engine.loading(spec, files, weights, element_bytes, cuda=cuda),
        draft=_draft(spec, files.draft, cuda, tokens, capability) if files.draft else 0,
    )


def _draft(
    spec: VariantBase, files: ModelFiles, cuda: bool, tokens: int, capability: Capability | None
) -> int:
    """Return the bytes of weights and KV cache of the draft model, which transformers loads."""
    engine = baseline()
    keys = {"engine": engine.name, "label": "draft", "model": spec.draft, "dtype": spec.dtype}
    drafting = engine.variant_table.model_validate({**keys, "decode": "generate"})
    found = estimate(drafting, files, cuda=cuda, tokens=tokens, capability=capability)
    return found.weights + max(0, found.kv_cache)


def notes(
    spec: VariantBase,
    files: ModelFiles,
    tokens: int,
    *,
    cuda: bool = True,
    capability: Capability | None = None,
) -> list[str]:
    """Return notes on the estimate for `tokens`, one line each; arguments as for `estimate`."""
    found = []
    shape = read_architecture(files.config)
    if shape is None:
        found.append("config.json does not give the layers and heads: the estimate has no KV cache")
    elif (taken := _within_context(shape, tokens)) < tokens:
        found.append(
            f"the model's context is {taken} tokens: the estimate is for this length, not {tokens}"
        )
    engine = engine_of(spec)
    dtype = engine.loaded_dtype(spec, files, cuda=cuda)
    if method := engine.dequantizes(spec, files, cuda=cuda, capability=capability):
        size = dequantized(files.tensors, DTYPE_BYTES[dtype]).total
        found.append(
            f"{method} is dequantized to {dtype} when it is loaded:"
            f" {size / 1e9:.1f} GB, not {files.bytes / 1e9:.1f} GB"
        )
    return [*found, *engine.notes(spec, files, dtype, cuda=cuda)]


def _within_context(shape: Architecture | None, tokens: int) -> int:
    """Return `tokens`, limited to the model's context length if that is known."""
    return min(tokens, shape.context_length) if shape and shape.context_length else tokens


def _kv_cache(spec: VariantBase, shape: Architecture, tokens: int, element_bytes: int) -> int:
    engine = engine_of(spec)
    elements = shape.kv_cache(tokens, engine.cached_tokens(spec, tokens))
    stored = elements * engine.cached_element(spec, element_bytes)
    if spec.kv_cache and (recent := min(tokens, KV_CACHES[spec.kv_cache].recent)):
        stored += shape.kv_cache(recent, recent) * element_bytes
    return round(stored)


def _activations(
    spec: VariantBase,
    shape: Architecture | None,
    weights: Weights,
    tokens: int,
    element_bytes: int,
) -> int:
    # For a prompt, 4-bit weights are multiplied in full precision, so one matrix at a time is
    # dequantized.
    dense = weights.largest * element_bytes if weights.packed else 0
    if shape is None:
        return dense
    chunk = tokens if spec.decode_mode == "generate" else min(tokens, PREFILL_TOKENS)
    # Eager attention stores its scores and their softmax in memory; other implementations do not.
    scores = 2 * shape.heads * chunk * tokens if spec.attention == "eager" else 0
    return dense + (shape.activations(chunk) + scores) * element_bytes
