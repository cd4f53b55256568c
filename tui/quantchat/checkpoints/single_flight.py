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
        self._under_way: dict[str, _Shared[T]] = {}

    async def join(
        self,
        key: str,
        begin: Callable[[OnProgress], Coroutine[Any, Any, T]],
        on_progress: OnProgress,
    ) -> T:
        """Return the result of the task of `key`; start it with `begin` if none is running.

        Each caller's `on_progress` gets the progress; a caller that joins later gets the latest
        progress at once. A cancelled caller stops waiting. When no caller is waiting any more, the
        task is cancelled, and this call waits until the task has ended.
        """
        shared = self._under_way.get(key)
        if shared is None:
            shared = self._under_way[key] = _Shared(begin)
        place = shared.enter(on_progress)
        try:
            return await asyncio.shield(shared.task)
        finally:
            shared.leave(place)
            if not shared.listeners and self._under_way.get(key) is shared:
                # Delete first: a new caller must not join a task that is being cancelled.
                del self._under_way[key]
                await shared.end()


class _Shared(Generic[T]):
    def __init__(self, begin: Callable[[OnProgress], Coroutine[Any, Any, T]]) -> None:
        self.listeners: dict[int, OnProgress] = {}
        self._latest: Progress | None = None
        self._entered = 0
        self.task: asyncio.Task[T] = asyncio.ensure_future(begin(self._tell))

    def enter(self, listener: OnProgress) -> int:
        self._entered += 1
        self.listeners[self._entered] = listener
        if self._latest is not None:
            listener(self._latest)
        return self._entered

    def leave(self, place: int) -> None:
        del self.listeners[place]

    async def end(self) -> None:
        """Cancel the task if it is still running; wait for its end and ignore its result."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    def _tell(self, progress: Progress) -> None:
        self._latest = progress
        for listener in list(self.listeners.values()):
            listener(progress)
