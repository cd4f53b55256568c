"""The memory of one variant's worker over time, as measured from outside the process."""

from __future__ import annotations

from collections import deque

from quantchat.system.process_memory import SOURCES, ProcessMemory, on_gpu, with_process_memory
from quantchat.wire.variant import EXTERNAL_SERVER, Ledger

HISTORY = 600
"""Number of stored samples, one per second."""


class MemoryTrack:
    """The latest measurement and the history. Both start anew when the worker's pid changes."""

    def __init__(self) -> None:
        self.latest: ProcessMemory | None = None
        self.ledger: Ledger | None = None
        self.history: deque[tuple[float, int]] = deque(maxlen=HISTORY)
        """(time in s by the monotonic clock, bytes) of each measurement with known memory."""
        self._pid: int | None = None

    def add(self, at_s: float, pid: int, ledger: Ledger, memory: ProcessMemory) -> None:
        """Add a measurement made at `at_s` of the monotonic clock."""
        if pid != self._pid:
            self.clear()
            self._pid = pid
        self.latest = memory
        self.ledger = with_process_memory(ledger, memory)
        if memory.bytes is not None:
            self.history.append((at_s, memory.bytes))

    def clear(self) -> None:
        """Drop everything: the worker has ended."""
        self.latest = self.ledger = self._pid = None
        self.history.clear()

    @property
    def kind(self) -> str:
        """`VRAM`, `RAM`, or `memory` if it is not known which of the two was measured."""
        if self.ledger is None or self.ledger.device == EXTERNAL_SERVER:
            return "memory"
        # The ledger of a server that quantchat started does not say where the server's memory is;
        # the source of the measurement does.
        on_device = on_gpu(self.ledger) or (
            self.latest is not None and self.latest.source == "nvml"
        )
        return "VRAM" if on_device else "RAM"

    @property
    def source(self) -> str:
        """What the total measures, in words; empty if that is not known."""
        if self.latest is None or self.latest.bytes is None:
            return ""
        return SOURCES.get(self.latest.source, "")
