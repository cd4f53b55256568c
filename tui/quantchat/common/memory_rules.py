"""Memory rules shared by plan and worker: KV-cache lengths, usable share of a GPU."""

from __future__ import annotations

SMALL, LARGE = 256, 1024
"""Tokens per allocation step: small steps up to `FINE` tokens, large ones above."""

FINE = 2048

SHARE = 0.85
"""Largest share of a GPU's free memory for weights that may be split over several GPUs; KV cache,
activations and allocator slack need the remainder."""


def bucket(tokens: int) -> int:
    """Return how many tokens are allocated for a KV cache of `tokens`; 0 for none.

    Steps rather than the exact length, so that a token seldom moves the cache and a compiled or
    captured decode step serves many lengths; steps rather than the whole context, so that a short
    answer never pays for a long context.
    """
    step = SMALL if tokens <= FINE else LARGE
    return -(-tokens // step) * step


def buckets(first: int, last: int) -> list[int]:
    """Return each length that is allocated for `first` to `last` tokens, the smallest first."""
    found = [bucket(first)]
    while found[-1] < last:
        found.append(bucket(found[-1] + 1))
    return found
