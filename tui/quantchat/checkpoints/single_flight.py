"""Run one task per key, shared by all callers that wait for its result."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from quantchat.wire.messages import Progress

T = TypeVar("T")
OnProgress = Callable[[Progress], None]


class SingleFlight(Generic[T]):
    """The running tasks by key, each with its waiting callers."""

    def __init__(self) -> None:
        self._running: dict[str, _Shared[T]] = {}

    async def join(
        self,
        key: str,
        begin: Callable[[OnProgress], Coroutine[Any, Any, T]],
        on_progress: OnProgress,
    ) -> T:
        """Return the result of the task of `key`; start it with `begin` if none is running.

        `begin` takes a function with which the task reports its progress. The progress is passed to
        `on_progress` of each caller; a caller that joins later gets the latest progress at once. A
        cancelled caller stops waiting. When no caller is waiting any more, the task is cancelled,
        and this call waits until the task has ended.
        """
        shared = self._running.get(key)
        if shared is None:
            shared = self._running[key] = _Shared(begin)
        number = shared.add_listener(on_progress)
        try:
            return await asyncio.shield(shared.task)
        finally:
            shared.remove_listener(number)
            if not shared.listeners and self._running.get(key) is shared:
                # Delete first: a new caller must not join a task that is being cancelled.
                del self._running[key]
                await shared.end()


class _Shared(Generic[T]):
    def __init__(self, begin: Callable[[OnProgress], Coroutine[Any, Any, T]]) -> None:
        self.listeners: dict[int, OnProgress] = {}
        self._latest: Progress | None = None
        self._entered = 0
        self.task: asyncio.Task[T] = asyncio.ensure_future(begin(self._report))

    def add_listener(self, listener: OnProgress) -> int:
        self._entered += 1
        self.listeners[self._entered] = listener
        if self._latest is not None:
            listener(self._latest)
        return self._entered

    def remove_listener(self, number: int) -> None:
        del self.listeners[number]

    async def end(self) -> None:
        """Cancel the task if it is still running; wait for its end and ignore its result."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    def _report(self, progress: Progress) -> None:
        self._latest = progress
        for listener in list(self.listeners.values()):
            listener(progress)
