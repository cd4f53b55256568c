"""A column whose worker misbehaves shows one line about it; the other column continues."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from fakes.scripted_worker import Script, ScriptedProvider, starter
from fakes.waiting import until
from quantchat.errors import UserError
from quantchat.host import log_news
from quantchat.host.worker_process import Place, Worker, start_worker
from quantchat.profile.model import Profile
from quantchat.session import live_variant
from quantchat.session.comparison import Comparison
from quantchat.session.live_variant import (
    HUNG_S,
    LOST_LOADING_S,
    LOST_S,
    SILENT_S,
    STUCK_S,
    LiveVariant,
    State,
)
from quantchat.wire.messages import Failed

pytestmark = pytest.mark.usefixtures("own_folders")

HELLO = 'b\'{"type":"Hello","protocol":1,"pid":1,"python":"3.11"}\\n\''
WORKER = f"""#!{sys.executable}
import os, signal, sys, time

def say(data):
    os.write(int(sys.argv[3]), data)

"""


class Bench:
    """Left is a real process that runs some lines of Python, right is a scripted worker."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.scripts = {"A": Script(), "B": Script()}
        self._program: Path | None = None
        self.cannot: UserError | None = None
        """Why the left worker cannot be started, if so."""
        variants = [{"label": s, "engine": "bitsandbytes", "model": "m"} for s in self.scripts]
        self.comparison = Comparison(
            Profile.model_validate({"name": "test", "variants": variants}),
            provider=ScriptedProvider(self.scripts),
            start=self._start,
        )

    async def _start(self, place: Place) -> Worker:
        if place.label == "A" and self.cannot is not None:
            raise self.cannot
        if place.label == "A" and self._program is not None:
            return await start_worker(Place(place.label, str(self._program)))
        return await starter(self.scripts, self._folder)(place)

    def runs(self, program: str) -> None:
        """Let the left worker be `program`."""
        self._program = self._folder / "worker"
        self._program.write_text(WORKER + program)
        self._program.chmod(0o700)

    def runs_well(self) -> None:
        """Let the left worker be one that works."""
        self._program = None

    @property
    def left(self) -> LiveVariant:
        return self.comparison.sides[0]

    async def both(self, left: State) -> None:
        self.comparison.open()
        right = self.comparison.sides[1]
        await until(lambda: self.left.state is left and right.state is State.READY)

    async def the_other_answers(self) -> None:
        turn = self.comparison.ask("hello")
        await self.comparison.wait()
        assert [a.text for a in turn.answers.values()] == ["The capital of France is **Paris**."]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("say(b'what?\\n')", "the worker sent an invalid message: not JSON"),
        ("say(b'\\xff\\xfe\\x1b]0;t\\x07\\n')", "the worker sent an invalid message: not JSON"),
        ("say(b'[1]\\n')", "not an object"),
        ('say(b\'{"type":"Rm","path":"/"}\\n\')', "unknown message type"),
        ("say(b'{' * 100_000 + b'\\n')", "not JSON"),
        ("say(b'x' * (17 * 2**20))", "a line of over 16777216 bytes"),
        (f"say({HELLO}[:20])", "the worker ended unexpectedly (exit status 0)"),
        (f"say({HELLO}); sys.exit(3)", "the worker ended unexpectedly (exit status 3)"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "the worker died of SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed (signal 9)"),
    ],
)
async def test_a_worker_that_misbehaves(bench: Bench, program: str, reason: str) -> None:
    bench.runs(program)
    await bench.both(State.FAILED)
    failure = bench.left.failure
    assert failure is not None
    assert reason in failure.reason
    assert len(failure.reason.splitlines()) == 1 and failure.reason.isprintable()
    assert failure.hint
    await bench.the_other_answers()
    # It can be tried again.
    bench.runs_well()
    bench.left.retry()
    await until(lambda: bench.left.state is State.READY)
    await bench.comparison.close()


COMPILING = f"""
say({HELLO})
say(b'{{"type":"Progress","stage":"loading weights","done":0,"total":0,"detail":""}}\\n')
while True:
    os.write(2, b"compiling \\x1b[1mmarlin\\x1b[0m\\r3 of 7 \\x1b]0;t\\x07\\n\\n")
    say(b'{{"type":"Alive"}}\\n')
    time.sleep(0.01)
"""


async def test_a_stage_that_takes_long_shows_what_the_library_prints(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_news, "PATIENCE_S", 0.0)
    bench.runs(COMPILING)
    bench.comparison.open()
    await until(lambda: bool(bench.left.progress and bench.left.progress.detail))
    progress = bench.left.progress
    assert progress is not None and progress.stage == "loading weights"
    assert progress.detail.startswith("3 of 7")
    await bench.comparison.close()


async def test_what_cannot_start_tells_the_cure_apart(bench: Bench) -> None:
    bench.cannot = UserError("no such folder", where="/models/x", hint="name another")
    await bench.both(State.FAILED)
    assert bench.left.failure == Failed("cannot_start", "/models/x: no such folder", "name another")
    await bench.the_other_answers()
    await bench.comparison.close()


@pytest.mark.parametrize(
    ("counts", "kind", "said"),
    [
        ([4, 5], "out_of_memory", "killed (signal 9) because the machine ran out of memory"),
        ([4, 4], "worker_ended", "killed (signal 9)"),
        ([None, None], "worker_ended", "killed (signal 9)"),
    ],
)
async def test_only_the_kernel_knows_that_memory_ran_out(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    counts: list[int | None],
    kind: str,
    said: str,
) -> None:
    """`counts`: the kernel's, when the worker starts and when it is gone."""
    before, after = counts
    told = iter([before, before])  # both variants ask when they start
    monkeypatch.setattr(live_variant, "oom_kills", lambda: next(told, after))
    bench.runs("os.kill(os.getpid(), signal.SIGKILL)")
    await bench.both(State.FAILED)
    failure = bench.left.failure
    assert failure is not None
    assert failure.kind == kind
    assert failure.reason.endswith(said)
    await bench.comparison.close()


async def test_what_nobody_foresaw_is_a_reason_too(
    bench: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    bench.scripts["A"].start_fails = RuntimeError("a mistake\nof ours \x1b[2J")
    await bench.both(State.FAILED)
    failure = bench.left.failure
    assert failure is not None
    assert failure.reason == "RuntimeError: a mistake of ours ␛[2J"
    assert "log" in failure.hint
    assert "a mistake" in capfd.readouterr().err  # which is the screen's log
    await bench.the_other_answers()
    await bench.comparison.close()


async def test_a_worker_that_hangs_is_told_of_and_can_be_ended(bench: Bench) -> None:
    """Stopped for real: it answers to nothing, and is ended all the same."""
    bench.runs(f"say({HELLO})\ntime.sleep(600)")
    bench.comparison.open()
    await until(lambda: bench.left.pid is not None and bench.left.log)
    pid = bench.left.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    now = time.monotonic()
    assert bench.left.suspected_hang(now) is None
    silence = bench.left.suspected_hang(now + SILENT_S + 3)
    assert silence is not None and silence.kind == "not_responding"
    assert "has not sent a message" in silence.reason and silence.hint
    assert bench.left.state is State.LOADING  # told, and not acted upon

    bench.left._last_message_s -= SILENT_S + 3
    bench.runs_well()
    bench.left.retry()
    await until(lambda: bench.left.state is State.READY)
    assert not psutil.pid_exists(pid)
    assert bench.left.suspected_hang(time.monotonic()) is None
    await bench.comparison.close()


async def test_an_answer_that_does_not_grow_is_told_of(bench: Bench) -> None:
    bench.scripts["A"].holds_after = 2
    await bench.both(State.READY)
    turn = bench.comparison.ask("hello")
    await until(lambda: len(turn.answers["A"].ids) == 2)
    bench.left._last_message_s = now = time.monotonic() + STUCK_S + 1  # it says that it lives
    silence = bench.left.suspected_hang(now)
    assert silence is not None and "has not grown" in silence.reason
    bench.scripts["A"].gate.set()
    await bench.comparison.wait()
    assert bench.left.suspected_hang(time.monotonic()) is None
    await bench.comparison.close()


async def test_when_a_measurement_ends_a_worker(bench: Bench) -> None:
    bench.scripts["A"].loading_gate = gate = asyncio.Event()
    bench.comparison.open()
    await until(lambda: bench.left.state is State.LOADING and bench.left.pid is not None)
    now = time.monotonic()
    assert (
        bench.left.reason_to_end(now + LOST_S + 1) is None
    )  # a library may be read from a slow disk
    assert bench.left.reason_to_end(now + LOST_LOADING_S + 1) is not None
    gate.set()
    await bench.both(State.READY)
    now = time.monotonic()
    assert bench.left.reason_to_end(now + HUNG_S + 1) is None  # nobody waits for it
    bench.scripts["A"].holds_after = 2
    turn = bench.comparison.ask("hello")
    await until(lambda: len(turn.answers["A"].ids) == 2)
    now = time.monotonic()
    assert bench.left.reason_to_end(now + LOST_S - 1) is None
    silent = bench.left.reason_to_end(now + LOST_S + 1)
    assert silent is not None and "sent no message for" in silent.reason
    bench.left._last_message_s = now + HUNG_S + 1  # it says that it lives
    hung = bench.left.reason_to_end(now + HUNG_S + 1)
    assert hung is not None and "did not grow" in hung.reason
    bench.left.end_with(hung)
    await bench.comparison.wait()
    assert turn.answers["A"].failure == bench.left.failure == hung
    assert turn.answers["B"].failure is None
    await bench.comparison.close()
    assert bench.left.state is State.FAILED


@pytest.mark.parametrize(("after", "said"), [(0, ""), (3, "The capital of")])
async def test_out_of_memory_in_prefill_or_in_the_middle_of_an_answer(
    bench: Bench, after: int, said: str
) -> None:
    script = bench.scripts["A"]
    script.answer_fails, script.fails_after = Failed("out_of_memory", "no room", "less"), after
    await bench.both(State.READY)
    turn = bench.comparison.ask("hello")
    await bench.comparison.wait()
    left, right = turn.answers.values()
    assert left.failure is not None and left.failure.kind == "out_of_memory"
    assert left.text == said  # it is kept
    assert right.text.endswith("Paris**.")
    assert bench.left.state is State.READY
    await bench.comparison.close()
