"""Runs work in daemon threads: for a disk or driver that may be slow, or hang for ever.

`asyncio.to_thread` and thread pools are no use for this: a program waits for their threads when it
ends.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import (
    TimeoutError as TimeoutOfFuture,
)  # the same class as the builtin since 3.11
from typing import TypeVar

from quantchat.errors import UserError

_Result = TypeVar("_Result")


def in_daemon_thread(work: Callable[[], _Result], name: str = "") -> Future[_Result]:
    """Call `work` in a daemon thread called `name`; return a future with its result or exception.

    An event loop awaits the future with `asyncio.wrap_future`. The work itself cannot be cancelled.
    """
    future: Future[_Result] = Future()
    future.set_running_or_notify_cancel()  # from now on, cancelling has no effect

    def run() -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - whoever waits for the result raises it
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=run, name=name or None, daemon=True).start()
    return future


def wait_for_disk(result: Future[_Result], seconds: float) -> _Result:
    """Wait for a `result` that depends on the disk. Raises UserError after `seconds`.

    Called in the main thread, this wait lets signal handlers run. They could not run if the main
    thread itself were blocked by the disk.
    """
    try:
        return result.result(seconds)
    except TimeoutOfFuture as error:
        raise disk_timeout(seconds) from error


def disk_timeout(seconds: float) -> UserError:
    """Return the error for a disk that has been silent for `seconds`."""
    return UserError(f"the disk did not answer for {seconds:.0f} s")


async def to_daemon_thread(
    work: Callable[[], _Result], name: str = "", *, within_s: float | None = None
) -> _Result:
    """Return what `work` returns in a daemon thread, as `asyncio.to_thread` does in a pool.

    Raises UserError after `within_s` seconds. The thread then goes on, and its result is discarded.
    """
    result = asyncio.wrap_future(in_daemon_thread(work, name))
    try:
        await asyncio.wait([result], timeout=within_s)
        if within_s is not None and not result.done():
            raise disk_timeout(within_s)
        return result.result()
    finally:
        result.cancel()  # no effect if it is done
