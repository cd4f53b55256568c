"""Compute RMS norms (Zhang and Sennrich 2019) with torch's fused kernel, for a captured GPU step.

transformers computes a norm with eight kernels. In the step of a Llama layer, the two norms are 16
of about 40 kernels on a GPU, and a kernel costs little more than its launch. torch has a single
kernel for a norm on CUDA (since 2.9). It rounds once, after multiplying by the weight; transformers
also rounds before that.
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
"""Largest relative error of a fused norm compared with its module, in units of the dtype's machine
epsilon."""


def fusable_norms(model: Any) -> list[Any]:
    """Return the RMSNorm modules of `model` whose results agree with torch's kernel.

    Gemma's norms, for example, do not agree, because they multiply by 1 + weight.
    """
    return [module for module in model.modules() if _is_fusable(module)]


@contextlib.contextmanager
def fused_norms(norms: Sequence[Any]) -> Iterator[None]:
    """Compute `norms` with torch's kernel while the context lasts."""
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


def _is_fusable(module: Any) -> bool:
    weight = getattr(module, "weight", None)
    if not type(module).__name__.endswith("RMSNorm") or _epsilon(module) is None:
        return False
    if weight is None or weight.dim() != 1 or "forward" in vars(module):  # set by a hook
        return False
    # The sample is not random, because that would change the state of torch's random generator.
    sample = torch.arange(_SAMPLE_ROWS * len(weight), device=weight.device).sin()
    sample = sample.view(_SAMPLE_ROWS, -1).to(weight.dtype)
    with torch.inference_mode():
        expected, found = module(sample), _computed(module, sample)
    if found.dtype != expected.dtype:
        return False
    error = (found.float() - expected.float()).norm() / expected.float().norm()
    return bool(error <= _ULPS * torch.finfo(weight.dtype).eps)
