"""Which GPU a worker means by `cuda:0`: CUDA numbers those it is shown, NVML all there are."""

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
    """The GPUs of `gpus` that this process and its workers are shown, in CUDA's order."""
    return visible_gpus(gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))


def cuda_name(gpu: _G, shown: Sequence[_G]) -> str:
    """What a profile calls `gpu`, one of `shown_gpus`; empty where it is none of them."""
    return f"cuda:{shown.index(gpu)}" if gpu in shown else ""


def visible_gpus(gpus: Sequence[_G], shown: str | None) -> list[_G]:
    """The GPUs of `gpus` in CUDA's order, where CUDA_VISIBLE_DEVICES is `shown` (None: not set).

    Its entries are indices or the beginnings of UUIDs; the first that names no GPU ends the list
    (CUDA programming guide, environment variables). Indices are those of the bus, as workers are
    told (CUDA_DEVICE_ORDER) unless the user has told them otherwise. Of MIG instances a process is
    shown one, and no board beside it (MIG user guide, CUDA device enumeration).
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
