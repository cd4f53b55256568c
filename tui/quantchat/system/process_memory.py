"""The memory of one worker, with the source of the figure.

NVML's figure for the memory of a process has five cases: the figure is known; NVML lists the pids
of the host, not of the container; the figure is 0; the figure is not available; the call is
unsupported. Only the first is a measurement. In the other cases the worker's own torch figures are
shown, with a label that says so. The memory in use on the whole device is never shown as that of a
variant.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantchat.wire.variant import Ledger

if TYPE_CHECKING:
    from quantchat.system.gpus import ProcessReading

SOURCES = {
    "nvml": "process total, from NVML",
    "torch": "reserved by torch, without the CUDA context",
    "resident": "resident, with child processes",
    "unknown": "not known",
}
"""Source of a figure → what it measures; shown beside the figure."""


@dataclass(frozen=True)
class ProcessMemory:
    """Memory of one worker in bytes, its source, and why there is no better source."""

    bytes: int | None
    """The figure; None if it is not known."""
    source: str
    """What was read: `nvml`, `torch`, `resident` or `unknown`; a key of `SOURCES`."""
    reason: str = ""
    """Why there is no better source; empty if `source` is the best for the device."""


def gpu_memory(reading: ProcessReading, ledger: Ledger) -> ProcessMemory:
    """Return the best available memory figure for a worker on a GPU.

    `reading` is NVML's figure for the process, `ledger` has the worker's own figures.
    """
    reserved = reserved_bytes(ledger)
    reason = reading.reason
    if reading.bytes is not None and reading.bytes < (reserved or 0):
        # In a container NVML lists the host's ids, one of which may equal the worker's by chance.
        reason = "NVML's figure is below what the worker reserved: another process has its id"
    elif reading.bytes:
        return ProcessMemory(reading.bytes, "nvml")
    if reserved:
        return ProcessMemory(reserved, "torch", reason)
    return ProcessMemory(None, "unknown", reason)


def resident_memory(resident: int | None) -> ProcessMemory:
    """Return the memory figure for a worker on the CPU.

    `resident` is its resident memory in bytes; None if the worker has ended.
    """
    if resident:
        return ProcessMemory(resident, "resident")
    return ProcessMemory(None, "unknown", "the process has ended")


def reserved_bytes(ledger: Ledger) -> int | None:
    """Return the bytes that torch's allocator has reserved on the GPU; None if not known."""
    if not on_gpu(ledger):
        return None
    parts = (ledger.weights, ledger.draft, ledger.kv_cache, ledger.other_live, ledger.slack)
    return None if min(parts) < 0 else sum(parts)


def on_gpu(ledger: Ledger) -> bool:
    """Return whether the ledger's parts are GPU memory."""
    return ledger.device.startswith("cuda")


def with_process_memory(ledger: Ledger, memory: ProcessMemory) -> Ledger:
    """Return `ledger` with the process total and, on a GPU, the non-torch memory.

    `ledger` is returned unchanged if `memory` does not cover the whole process. Unknown parts stay
    -1.
    """
    if memory.bytes is None or memory.source not in ("nvml", "resident"):
        return ledger
    reserved = reserved_bytes(ledger)
    return dataclasses.replace(
        ledger,
        process=memory.bytes,
        non_torch=ledger.non_torch if reserved is None else memory.bytes - reserved,
    )
