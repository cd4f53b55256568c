"""What one variant's worker holds, over time, as measured from outside."""

from __future__ import annotations

from collections import deque

from quantchat.system.process_memory import SOURCES, ProcessMemory, complete, on_gpu
from quantchat.wire.variant import SERVER, Ledger

HISTORY = 600
"""Samples kept, one a second."""


class MemoryTrack:
    """The latest figure with its history. Begins anew when the worker is another one."""

    def __init__(self) -> None:
        self.latest: ProcessMemory | None = None
        self.ledger: Ledger | None = None
        self.history: deque[tuple[float, int]] = deque(maxlen=HISTORY)
        self._pid: int | None = None

    def note(self, at_s: float, pid: int, ledger: Ledger, memory: ProcessMemory) -> None:
        """Take one measurement, made at `at_s` of the monotonic clock."""
        if pid != self._pid:
            self.forget()
            self._pid = pid
        self.latest = memory
        self.ledger = complete(ledger, memory)
        if memory.bytes is not None:
            self.history.append((at_s, memory.bytes))

    def forget(self) -> None:
        """The worker is gone, and its memory with it."""
        self.latest = self.ledger = self._pid = None
        self.history.clear()

    @property
    def kind(self) -> str:
        """Whether the figures are device memory or main memory."""
        if self.ledger is None or self.ledger.device == SERVER:
            return "memory"  # nobody tells which
        # A server's own ledger does not tell: where its memory was found does.
        on_device = on_gpu(self.ledger) or (
            self.latest is not None and self.latest.source == "nvml"
        )
        return "VRAM" if on_device else "RAM"

    @property
    def source(self) -> str:
        """Which figure the total is."""
        if self.latest is None or self.latest.bytes is None:
            return ""
        return SOURCES.get(self.latest.source, "")
