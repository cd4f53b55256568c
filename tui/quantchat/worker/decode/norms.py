"""RMS norms (Zhang and Sennrich 2019) by one kernel of torch's, for a step made of many small ones.

transformers writes them out as eight operations: in a Llama layer's step two norms are 16 of some
40 kernels on a GPU, each of which costs about what its start does. torch has one for CUDA (since
2.9; an older one writes it out as well), which rounds once, after the weight, and not before too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch.nn import functional

_SAMPLE_ROWS = 4
_ULPS = 4
"""Most that a norm may be off its module, relative to the result, in units of the rounding."""


def plain_norms(model: Any) -> list[Any]:
    """The norms of `model` that torch's kernel computes: of those named so, the ones that agree.

    A norm that multiplies by one more than its weight (Gemma's), say, is not among them.
    """
    return [module for module in model.modules() if _is_plain(module)]


@contextlib.contextmanager
def at_once(norms: Sequence[Any]) -> Iterator[None]:
    """Have `norms` computed by torch's kernel until the block is left."""
    for norm in norms:
        norm.forward = partial(_computed, norm)
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


def _computed(norm: Any, hidden: Any) -> Any:
    return functional.rms_norm(hidden, norm.weight.shape, norm.weight, _epsilon(norm))


def _epsilon(norm: Any) -> float | None:
    epsilon = getattr(norm, "variance_epsilon", getattr(norm, "eps", None))
    return epsilon if isinstance(epsilon, float) else None


def _is_plain(module: Any) -> bool:
    weight = getattr(module, "weight", None)
    if not type(module).__name__.endswith("RMSNorm") or _epsilon(module) is None:
        return False
    if weight is None or weight.dim() != 1 or "forward" in vars(module):  # a hook's
        return False
    # Not random: no generator's state may move.
    sample = torch.arange(_SAMPLE_ROWS * len(weight), device=weight.device).sin()
    sample = sample.view(_SAMPLE_ROWS, -1).to(weight.dtype)
    with torch.inference_mode():
        expected, found = module(sample), _computed(module, sample)
    if found.dtype != expected.dtype:
        return False
    error = (found.float() - expected.float()).norm() / expected.float().norm()
    return bool(error <= _ULPS * torch.finfo(weight.dtype).eps)
