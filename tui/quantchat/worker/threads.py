"""Start the worker's threads so that an exception in one is always reported."""

from __future__ import annotations

import threading
from collections.abc import Callable

from quantchat.worker.failures import log


def start(
    name: str, work: Callable[[], None], failed: Callable[[BaseException], None]
) -> threading.Thread:
    """Run `work` in a daemon thread called `name`.

    If `work` raises an exception, it is written to the log, and `failed` is called with it in the
    same thread. `failed` must report it, and end the worker if the worker cannot run without
    `work`.
    """

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - whatever it was, it must be reported
            log(error)
            failed(error)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread
