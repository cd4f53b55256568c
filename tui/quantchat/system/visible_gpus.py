"""Maps CUDA's device numbers to GPUs: CUDA numbers only visible GPUs, NVML numbers all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Protocol, TypeVar


class _Gpu(Protocol):
    @property
    def index(self) -> int: ...
    @property
    def uuid(self) -> str: ...
    @property
    def mig(self) -> bool: ...


_G = TypeVar("_G", bound=_Gpu)


def shown_gpus(gpus: Sequence[_G]) -> list[_G]:
    """Return the GPUs that are visible to this process and its workers, in CUDA's order."""
    return visible_gpus(gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))


def cuda_name(gpu: _G, shown: Sequence[_G]) -> str:
    """Return the name of `gpu` in a profile (`cuda:0`); empty if it is not in `shown`."""
    return f"cuda:{shown.index(gpu)}" if gpu in shown else ""


def visible_gpus(gpus: Sequence[_G], shown: str | None) -> list[_G]:
    """Return the visible GPUs of `gpus` in CUDA's order for the CUDA_VISIBLE_DEVICES `shown`.

    None means that it is not set. Its entries are indices or starts of UUIDs; the first one that
    matches no GPU ends the list (CUDA programming guide, environment variables). Indices are in PCI
    bus order, which workers use (CUDA_DEVICE_ORDER) unless the user sets another. With MIG, a
    process sees one instance and no other GPU (MIG user guide, CUDA device enumeration).
    """
    found = list(gpus) if shown is None else _named(gpus, shown)
    return [gpu for gpu in found if gpu.mig][:1] or found


def _named(gpus: Sequence[_G], shown: str) -> list[_G]:
    found: list[_G] = []
    for entry in (part.strip() for part in shown.split(",")):
        if entry.isdecimal():
            named = [gpu for gpu in gpus if gpu.index == int(entry) and not gpu.mig]
        else:
            named = [gpu for gpu in gpus if entry and gpu.uuid.startswith(entry)]
        if not named or named[0] in found:
            break
        found.append(named[0])
    return found
