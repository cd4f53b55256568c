"""Bounds for what a model's files make of text: its tokenizer and its chat template.

Both come from outside and compute what they like: a normalizer that doubles its text forty times, a
pattern that backtracks for hours, a loop of a billion steps. Python is interrupted by a timer and
says why. Native code cannot be, so the kernel ends the worker where it goes on for longer, or takes
more memory; `WorkerEnded.reason` says that on the near side.
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
"""Of processor time, which other programs on a busy machine do not use up."""
GRACE_S = 5
"""So much longer native code may go on, until the kernel ends the process."""
MEMORY = 4 * 2**30
"""Bytes that may come on top of what the process holds."""

_TICK_S = 0.25

MEND = (
    "the model's tokenizer or chat template is at fault: lend it another model's (`tokenizer` in"
    " the profile), or look into tokenizer.json and chat_template.jinja"
)


class Interrupted(BaseException):
    """The user wants no answer any more. No Exception: a library would go on after one."""


@contextlib.contextmanager
def bounded(what: str, asked_to_stop: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Within this context, computing and memory have an end.

    `what` is done, as "reading the prompt". Raises Refused where it takes too much and can be
    interrupted, Interrupted as soon as `asked_to_stop()`. Only the main thread can be interrupted.
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
        # A worker that is ended so must not leave gigabytes of a core file behind.
        stack.enter_context(_limit(resource.RLIMIT_CORE, 0))
        stack.enter_context(_limit(resource.RLIMIT_CPU, math.ceil(began + SECONDS + GRACE_S)))
        if (held := _data_bytes()) is not None:
            stack.enter_context(_limit(resource.RLIMIT_DATA, held + MEMORY))
        if threading.current_thread() is threading.main_thread():
            stack.enter_context(_ticking(tick))
        try:
            yield
        except MemoryError as error:
            raise _too_much(what, f"{MEMORY / 2**30:.0f} GiB of memory") from error
        except Exception as error:  # of a library that was interrupted, and says something else
            if overdue():
                raise _too_much(what, f"{SECONDS} s of computing") from error
            raise
        if overdue():  # a library went on after it was interrupted
            raise _too_much(what, f"{SECONDS} s of computing")


def _too_much(what: str, how_much: str) -> Refused:
    return Refused("unsupported", f"{what} takes more than {how_much}", MEND)


@contextlib.contextmanager
def _limit(kind: int, most: int) -> Iterator[None]:
    """Lower the soft limit of a resource to `most`, where it is not lower already."""
    soft, hard = resource.getrlimit(kind)
    bounds = [bound for bound in (soft, hard, most) if bound != resource.RLIM_INFINITY]
    resource.setrlimit(kind, (min(bounds), hard))
    try:
        yield
    finally:
        resource.setrlimit(kind, (soft, hard))


@contextlib.contextmanager
def _ticking(tick: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = signal.signal(signal.SIGPROF, tick)
    signal.siginterrupt(signal.SIGPROF, False)
    signal.setitimer(signal.ITIMER_PROF, _TICK_S, _TICK_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, signal.SIG_IGN)  # one may be on its way
        signal.signal(signal.SIGPROF, before)


def _data_bytes() -> int | None:
    """What counts against RLIMIT_DATA now (getrlimit(2)); None where nothing tells."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    found = re.search(r"^VmData:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 2**10 if found else None
