"""Whose memory is it: one figure for one worker, with the name of where it comes from.

NVML's figure for a process has five cases: it works; its pids are the host's; it reads 0; it is
not available; the call is unsupported. Only the first is a measurement. Otherwise the worker's own
torch figures are shown, labelled so: the whole device's use is never passed off as a variant's.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantchat.wire.variant import Ledger

if TYPE_CHECKING:
    from quantchat.system.gpus import ProcessReading

SOURCES = {
    "nvml": "of the process, from NVML",
    "torch": "reserved by torch, without the CUDA context",
    "resident": "resident, with all it started",
    "unknown": "not known",
}
"""What each source measures, for a label beside the figure."""


@dataclass(frozen=True)
class ProcessMemory:
    """Memory of one worker in bytes, which figure it is, and why it is not a better one."""

    bytes: int | None
    source: str
    """A key of `SOURCES`."""
    reason: str = ""


def gpu_memory(reading: ProcessReading, ledger: Ledger) -> ProcessMemory:
    """The best figure there is for a worker on a GPU.

    `reading` is what NVML says of its process, `ledger` the worker's own.
    """
    reserved = reserved_bytes(ledger)
    reason = reading.reason
    if reading.bytes is not None and reading.bytes < (reserved or 0):
        reason = "NVML shows less than the worker itself reserved, so it means another process"
    elif reading.bytes:
        return ProcessMemory(reading.bytes, "nvml")
    if reserved:
        return ProcessMemory(reserved, "torch", reason)
    return ProcessMemory(None, "unknown", reason)


def resident_memory(resident: int | None) -> ProcessMemory:
    """The figure for a worker on the CPU: its resident bytes, None once it is gone."""
    if resident:
        return ProcessMemory(resident, "resident")
    return ProcessMemory(None, "unknown", "the process is gone")


def reserved_bytes(ledger: Ledger) -> int | None:
    """What torch's allocator holds on the GPU, in bytes; None where that is not known."""
    if not on_gpu(ledger):
        return None
    parts = (ledger.weights, ledger.kv_cache, ledger.other_live, ledger.slack)
    return None if min(parts) < 0 else sum(parts)


def on_gpu(ledger: Ledger) -> bool:
    """Whether the ledger's parts are device memory."""
    return ledger.device.startswith("cuda")


def complete(ledger: Ledger, memory: ProcessMemory) -> Ledger:
    """`ledger` with the process total, and on a GPU what of it is not torch's.

    Only a total that covers the whole process is one; parts stay -1 where they are not known.
    """
    if memory.bytes is None or memory.source not in ("nvml", "resident"):
        return ledger
    reserved = reserved_bytes(ledger)
    return dataclasses.replace(
        ledger,
        process=memory.bytes,
        non_torch=ledger.non_torch if reserved is None else memory.bytes - reserved,
    )
