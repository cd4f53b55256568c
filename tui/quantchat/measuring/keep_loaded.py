"""Compute how many variants may stay loaded: the two shown ones, and others that still fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from quantchat.common.memory_rules import WEIGHTS_SHARE
from quantchat.engines.registry import engine_of
from quantchat.measuring.memory_plan import DeviceMemory, VariantPlan, make_plan
from quantchat.profile.model import Profile
from quantchat.system.process_memory import reserved_bytes
from quantchat.system.sampler import DeviceSample
from quantchat.wire.variant import Ledger

SHOWN_VARIANTS = 2
"""Number of variants that the screen shows. They are loaded even if they do not fit."""


def loadable_count(
    profile: Profile, sample: DeviceSample, order: Sequence[int], ledgers: Mapping[int, Ledger]
) -> int:
    """Return how many variants from the beginning of `order` fit into memory together.

    `order` lists indices of variants of `profile` and begins with the two shown variants. These two
    are always counted, so the result is at least 2. `sample` describes the machine. `ledgers` has
    the memory ledger of each loaded variant, by index. A loaded variant needs the memory that it
    uses now, and a shown variant that is not loaded needs its estimated memory. The count ends
    before the first variant that does not fit, is spread over several GPUs, lies on a device whose
    free memory is unknown, or is neither shown nor loaded. Reads the headers of model files.
    """
    plans = make_plan(profile, sample, pair=tuple(order[:SHOWN_VARIANTS])).variants
    # Free bytes of each device that quantchat may use: first without any of the loaded variants,
    # then less the memory of the variants counted so far.
    free: dict[str, float] = {}
    for index, loaded in ledgers.items():
        device = plans[index].device
        if device.free is not None:
            free.setdefault(device.name, device.free)
            free[device.name] += _bytes_used(loaded, plans[index])
    for name in free:
        free[name] *= WEIGHTS_SHARE
    for count, index in enumerate(order):
        plan, ledger = plans[index], ledgers.get(index)
        if ledger is None and count >= SHOWN_VARIANTS:
            return count
        if _on_foreign_server(profile, index, plan.device):
            continue
        name = plan.device.name
        if plan.device.free is None or len(plan.device.gpus) > 1:
            return max(count, SHOWN_VARIANTS)
        needed = (
            _bytes_used(ledger, plan) if ledger else plan.estimate.peak if plan.estimate else None
        )
        if needed is None:
            return max(count, SHOWN_VARIANTS)
        free[name] = free.get(name, WEIGHTS_SHARE * plan.device.free) - needed
        if free[name] < 0:
            return max(count, SHOWN_VARIANTS)
    return len(order)


def _bytes_used(ledger: Ledger, plan: VariantPlan) -> int:
    """Return the bytes that a loaded variant uses, or its estimate if the ledger has no figure."""
    known = reserved_bytes(ledger) if plan.device.cuda else ledger.process
    if known is None or known < 0:
        return plan.estimate.total if plan.estimate else 0
    return known


def _on_foreign_server(profile: Profile, index: int, device: DeviceMemory) -> bool:
    """Return whether the variant runs on a server that quantchat did not start."""
    spec = profile.variants[index]
    return engine_of(spec).is_server and getattr(spec, "server", None) is None and not device.cuda
