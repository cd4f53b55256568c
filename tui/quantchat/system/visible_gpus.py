"""Maps CUDA's device numbers to GPUs: CUDA numbers only the visible GPUs, NVML all GPUs."""

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


def gpus_visible_here(gpus: Sequence[_G]) -> list[_G]:
    """Return the GPUs that are visible to this process and its workers, in CUDA's order."""
    return visible_gpus(gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))


def cuda_name(gpu: _G, visible: Sequence[_G]) -> str:
    """Return the name of `gpu` in a profile (`cuda:0`); empty if it is not in `visible`."""
    return f"cuda:{visible.index(gpu)}" if gpu in visible else ""


def visible_gpus(gpus: Sequence[_G], cuda_visible_devices: str | None) -> list[_G]:
    """Return the visible GPUs of `gpus` in CUDA's order.

    `cuda_visible_devices` is the variable of that name, None if it is not set. Its entries are
    indices or beginnings of UUIDs; the first entry that matches no GPU ends the list (CUDA
    programming guide, environment variables). Indices are in PCI bus order, which workers use
    (CUDA_DEVICE_ORDER) unless the user sets another. With MIG, a process sees one instance and no
    other GPU (MIG user guide, CUDA device enumeration).
    """
    found = list(gpus) if cuda_visible_devices is None else _named(gpus, cuda_visible_devices)
    return [gpu for gpu in found if gpu.mig][:1] or found


def _named(gpus: Sequence[_G], cuda_visible_devices: str) -> list[_G]:
    found: list[_G] = []
    for entry in (part.strip() for part in cuda_visible_devices.split(",")):
        if entry.isdecimal():
            named = [gpu for gpu in gpus if gpu.index == int(entry) and not gpu.mig]
        else:
            named = [gpu for gpu in gpus if entry and gpu.uuid.startswith(entry)]
        if not named or named[0] in found:
            break
        found.append(named[0])
    return found
