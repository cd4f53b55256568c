"""Limit the time and memory of a model's tokenizer and chat template.

Both are defined by downloaded files and can compute anything: a normalizer that doubles its text
forty times, a regular expression that backtracks for hours, a loop of a billion steps. A timer
interrupts Python code, and the user sees the reason. Native code cannot be interrupted: if it takes
too long or too much memory, the kernel ends the worker, and the main process reports that
(`WorkerEnded.reason`).
"""

from __future__ import annotations

import contextlib
import math
import re
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from quantchat.worker.failures import Refused

SECONDS = 30
"""Limit in seconds of processor time. Unlike elapsed time it does not depend on the load of the
machine."""
GRACE_S = 5
"""Seconds of processor time, after `SECONDS`, until the kernel ends the process."""
MEMORY = 4 * 2**30
"""Limit of memory in bytes, in addition to what the process already uses."""

_TICK_S = 0.25
"""Seconds of processor time between two checks."""

HINT = (
    "the model's tokenizer or chat template causes this: name another model's tokenizer"
    " (`tokenizer` in the profile), or check tokenizer.json and chat_template.jinja"
)


class Interrupted(BaseException):
    """The user stopped the answer. It is no subclass of Exception, which a library might catch."""


@contextlib.contextmanager
def bounded(what: str, asked_to_stop: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Limit processor time and memory while the context lasts.

    `what` names the work, e.g. "reading the prompt". Raises Refused if the work takes too much time
    or memory, and Interrupted when `asked_to_stop()` is true. Work in another thread than the main
    thread cannot be interrupted, and the kernel ends the process if it takes too long.
    """
    began = time.process_time()

    def overdue() -> bool:
        return time.process_time() - began > SECONDS

    def tick(_signal: int, _frame: FrameType | None) -> None:
        if asked_to_stop():
            raise Interrupted
        if overdue():
            raise _too_much(what, f"{SECONDS} s of computing")

    with contextlib.ExitStack() as stack:
        # The kernel must not write a core file of gigabytes when it ends the worker.
        stack.enter_context(_limit(resource.RLIMIT_CORE, 0))
        stack.enter_context(_limit(resource.RLIMIT_CPU, math.ceil(began + SECONDS + GRACE_S)))
        if (used := _data_bytes()) is not None:
            stack.enter_context(_limit(resource.RLIMIT_DATA, used + MEMORY))
        if threading.current_thread() is threading.main_thread():
            stack.enter_context(_ticking(tick))
        try:
            yield
        except MemoryError as error:
            raise _too_much(what, f"{MEMORY / 2**30:.0f} GiB of memory") from error
        except Exception as error:  # an interrupted library may raise another exception
            if overdue():
                raise _too_much(what, f"{SECONDS} s of computing") from error
            raise
        if overdue():  # a library swallowed the interruption
            raise _too_much(what, f"{SECONDS} s of computing")


def _too_much(what: str, how_much: str) -> Refused:
    return Refused("unsupported", f"{what} takes more than {how_much}", HINT)


@contextlib.contextmanager
def _limit(kind: int, most: int) -> Iterator[None]:
    """Within this context, lower a soft limit of the process to `most`, unless it is lower already.

    `kind` is a resource, such as `resource.RLIMIT_CPU`.
    """
    soft, hard = resource.getrlimit(kind)
    bounds = [bound for bound in (soft, hard, most) if bound != resource.RLIM_INFINITY]
    resource.setrlimit(kind, (min(bounds), hard))
    try:
        yield
    finally:
        resource.setrlimit(kind, (soft, hard))


@contextlib.contextmanager
def _ticking(tick: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Within this context, call `tick` every `_TICK_S` seconds of processor time."""
    before = signal.signal(signal.SIGPROF, tick)
    signal.siginterrupt(signal.SIGPROF, False)
    signal.setitimer(signal.ITIMER_PROF, _TICK_S, _TICK_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, signal.SIG_IGN)  # a signal may still be pending
        signal.signal(signal.SIGPROF, before)


def _data_bytes() -> int | None:
    """Return the bytes that now count toward RLIMIT_DATA (getrlimit(2)); None if unknown."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    found = re.search(r"^VmData:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 2**10 if found else None
