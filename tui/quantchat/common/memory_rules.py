"""Rules on memory that a plan and a worker apply alike: lengths of a KV cache, shares of a GPU."""

from __future__ import annotations

SMALL, LARGE = 256, 1024
"""Tokens a step adds: small ones up to `FINE` tokens, large ones above."""

FINE = 2048

SHARE = 0.85
"""Of a GPU's free memory, at most, for weights that may lie on several: KV cache, activations and
the allocator's slack need the rest."""


def bucket(tokens: int) -> int:
    """Tokens that are allocated for a KV cache of `tokens`; 0 for none.

    Steps rather than the exact length, so that a token seldom moves the cache and a compiled or
    captured decode step serves many lengths; steps rather than the whole context, so that a short
    answer never pays for a long context.
    """
    step = SMALL if tokens <= FINE else LARGE
    return -(-tokens // step) * step


def buckets(first: int, last: int) -> list[int]:
    """Each length that is allocated for `first` to `last` tokens, the smallest first."""
    found = [bucket(first)]
    while found[-1] < last:
        found.append(bucket(found[-1] + 1))
    return found
