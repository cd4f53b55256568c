"""Explains why a figure is shown as "–"."""

from __future__ import annotations

from collections.abc import Iterable

from quantchat.system.process_memory import SOURCES, ProcessMemory
from quantchat.system.sampler import DeviceSample

_NAMES = {
    "memory_used": "memory",
    "utilisation": "utilisation",
    "temperature_c": "temperature",
    "power_w": "power",
    "sm_clock_mhz": "SM clock",
    "memory_clock_mhz": "memory clock",
    "pstate": "performance state",
    "throttle": "throttling",
    "pcie_generation": "PCIe generation",
    "pcie_width": "PCIe width",
    "processes": "processes",
}
"""Field of `GpuSample` → its name for the user."""


def unknown_figures(
    device: DeviceSample, workers: Iterable[tuple[str, ProcessMemory | None]]
) -> list[tuple[str, str]]:
    """Return (device or figure, reason) for each figure that the machine does not report.

    `workers` has the label of each variant with its memory, or with None if its worker is not
    running. If a process total is not available, the source of the memory figure that is shown in
    its place is listed.
    """
    rows = [("GPU", device.no_gpu)] if device.no_gpu else []
    for gpu in device.gpus:
        for reason in dict.fromkeys(gpu.missing.values()):
            names = [_NAMES.get(name, name) for name, why in gpu.missing.items() if why == reason]
            rows.append((f"GPU {gpu.index}", f"{', '.join(names)}: {reason}"))
    for label, memory in workers:
        if memory is None:
            rows.append(("memory", f"{label}: no worker is running"))
        elif memory.reason:
            what = SOURCES[memory.source]
            if memory.bytes is not None:
                what = f"process total not known, shown instead: {what}"
            rows.append(("memory", f"{label}: {what}: {memory.reason}"))
    return rows
