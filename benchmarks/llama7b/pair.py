"""Measures two variants one at a time and together."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, NamedTuple

from driving import NotRun, ask

from llama7b.measure import Asked, Side, serving
from llama7b.results import measured
from quantchat.wire.messages import LoadModel

FAMILIES = ("GPTQ 4-bit", "NF4")
"""The two sides: how the labels of their variants begin."""
SHORTEST = 4
"""Least number of measured turns: among four turns, each side begins two."""


class Best(NamedTuple):
    """The fastest variant of a family, and the decode mode in which it is the fastest."""

    label: str
    mode: str


def fastest(variants: Mapping[str, Any], family: str, context: int) -> Best | None:
    """Return the variant of `family` and the mode with the highest throughput at `context`.

    None if no variant of the family was measured at this context.
    """
    speeds = {
        Best(label, mode): statistics.median(figures["tok_s"])
        for label, one in variants.items()
        if label.startswith(family)
        for mode, by_context in one.get("modes", {}).items()
        if measured(figures := by_context.get("contexts", {}).get(str(context), {}))
    }
    return max(speeds, key=lambda best: speeds[best]) if speeds else None


async def pair(loads: Mapping[str, LoadModel], asked: Asked) -> dict[str, Any]:
    """Return tok/s of both sides, one at a time and together; the keys of `loads` are labels."""
    try:
        async with AsyncExitStack() as stack:
            sides = {
                label: await stack.enter_async_context(
                    serving(label, replace(load, threads=asked.threads))
                )
                for label, load in loads.items()
            }
            decode = {label: side.ready.model_info.decode for label, side in sides.items()}
            rates = await _orders(sides, asked)
        return {"context": asked.contexts[0], "decode": decode, **rates}
    except NotRun as error:
        return {"not_run": str(error)}


async def _orders(sides: dict[str, Side], asked: Asked) -> dict[str, Any]:
    rates: dict[str, dict[str, list[float]]] = {
        order: {label: [] for label in sides} for order in ("in turn", "together")
    }
    shared = max(1, asked.threads // 2) if asked.threads else 0
    for number in range(max(SHORTEST, asked.rounds) + 1):  # the first one warms up
        labels = list(sides) if number % 4 in (0, 3) else list(reversed(sides))
        request = asked.request(2 * number, asked.contexts[0])
        for label in labels:
            answer = await ask(sides[label].worker, request)
            if number:
                rates["in turn"][label].append(round(answer.tok_s or 0.0, 2))
        request = asked.request(2 * number + 1, asked.contexts[0], threads=shared)
        both = await asyncio.gather(*(ask(sides[label].worker, request) for label in labels))
        if number:
            for label, answer in zip(labels, both, strict=True):
                rates["together"][label].append(round(answer.tok_s or 0.0, 2))
    return rates
