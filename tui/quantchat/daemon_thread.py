"""Runs work in daemon threads: for a disk or driver that may be slow, or hang for ever.

`asyncio.to_thread` and thread pools are no use for this: a program waits for their threads when it
ends.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TimeoutOfFuture  # the builtin only since 3.11
from typing import TypeVar

from quantchat.errors import UserError

_Result = TypeVar("_Result")


def in_daemon_thread(work: Callable[[], _Result], name: str = "") -> Future[_Result]:
    """Call `work` in a daemon thread called `name`; return its result, or exception, to come.

    An event loop awaits it with `asyncio.wrap_future`. The work itself cannot be cancelled.
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


def in_time(result: Future[_Result], seconds: float) -> _Result:
    """Wait for a `result` that depends on the disk. Raises UserError after `seconds`.

    A signal handler of the main thread can run meanwhile, unlike while that thread uses the disk.
    """
    try:
        return result.result(seconds)
    except TimeoutOfFuture as error:
        raise no_answer(seconds) from error


def no_answer(seconds: float) -> UserError:
    """Return the error for a disk that has been silent for `seconds`."""
    return UserError(f"the disk did not answer for {seconds:.0f} s")


async def to_daemon_thread(
    work: Callable[[], _Result], name: str = "", *, within_s: float | None = None
) -> _Result:
    """Return what `work` returns in a daemon thread, as `asyncio.to_thread` does in a pool.

    Raises UserError after `within_s` seconds. The thread goes on; nobody takes its result.
    """
    result = asyncio.wrap_future(in_daemon_thread(work, name))
    try:
        await asyncio.wait([result], timeout=within_s)
        if within_s is not None and not result.done():
            raise no_answer(within_s)
        return result.result()
    finally:
        result.cancel()  # no effect if it is done
