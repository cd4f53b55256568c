"""Memory rules that `plan` and the worker share: KV cache lengths, usable share of a GPU."""

from __future__ import annotations

_SMALL_STEP, _LARGE_STEP = 256, 1024
_SMALL_STEPS_UP_TO = 2048
"""A KV cache grows in steps of this many tokens: small steps up to `_SMALL_STEPS_UP_TO` tokens,
large steps beyond."""

WEIGHTS_SHARE = 0.85
"""Largest share of a GPU's free memory for weights that may be split over several GPUs; KV cache,
activations and allocator slack need the remainder."""


def bucket(tokens: int) -> int:
    """Return how many tokens are allocated for a KV cache of `tokens`; 0 for none.

    The length is rounded up to a step. So the cache seldom has to be copied to a longer one, and
    one compiled or captured decode step serves many lengths. The whole context is not allocated at
    once, because a short answer does not need it.
    """
    step = _SMALL_STEP if tokens <= _SMALL_STEPS_UP_TO else _LARGE_STEP
    return -(-tokens // step) * step


def buckets(first: int, last: int) -> list[int]:
    """Return the lengths that `bucket` gives for `first` to `last` tokens, the smallest first."""
    found = [bucket(first)]
    while found[-1] < last:
        found.append(bucket(found[-1] + 1))
    return found
