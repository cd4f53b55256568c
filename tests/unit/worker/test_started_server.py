"""A server that quantchat starts: real workers, and a real process with the protocol."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from fakes.opened_comparison import Opened
from fakes.waiting import PATIENCE_S, until
from quantchat.features.measure.rerun import Rerun
from quantchat.measuring.rounds import Plan
from quantchat.profile.load import loads
from quantchat.profile.model import Profile
from quantchat.session.conversation import Answer
from quantchat.session.live_variant import State
from quantchat.system.sampler import DeviceSampler
from quantchat.worker.servers.started import ServerCommand, StartedServer

PROGRAM = Path(__file__).parents[2] / "fakes" / "run_openai_server.py"
TOML = """
name = "servers"
[[variants]]
label = "one"
engine = "openai"
model = "tiny"
base_url = "http://127.0.0.1:{{port}}/v1"
[variants.server]
command = {command}
timeout_s = {timeout_s}
[[variants]]
label = "other"
engine = "openai"
model = "tiny"
base_url = "http://127.0.0.1:9/v1"
"""


@pytest.fixture(autouse=True)
def surroundings(own_folders: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(PROGRAM.parents[1]))
    monkeypatch.setenv("CANARY_API_KEY", "canary-of-the-server")


def profile(
    behaviour: str, *, program: str = "", timeout_s: float = 60, before: Sequence[str] = ()
) -> Profile:
    command = json.dumps([*before, program or sys.executable, str(PROGRAM), "{port}", behaviour])
    return loads(TOML.format(command=command, timeout_s=timeout_s), where="p.toml", folder=Path())


class Started(Opened):
    """Looks at the server that the first variant started."""

    def processes(self) -> list[psutil.Process]:
        """The worker's own child, and what that started."""
        assert self.one.pid is not None
        found = psutil.Process(self.one.pid).children(recursive=True)
        return [one for one in found if "python" in one.name()]

    @property
    def log(self) -> str:
        assert self.one.log is not None
        return self.one.log.read_text()


@pytest.fixture
async def opened() -> AsyncIterator[Any]:
    made: list[Started] = []

    async def open_(spec: Profile) -> Started:
        made.append(Started(spec))
        await made[-1].load(made[-1].one)
        return made[-1]

    yield open_
    for one in made:
        await one.comparison.close()


async def test_it_is_started_asked_measured_and_ended(opened: Any) -> None:
    run = await opened(profile("leaves"))
    assert run.one.state is State.READY, run.one.failure
    assert "starting the server" in run.stages
    turn = run.comparison.ask("Where?")
    answer: Answer = turn.answers["one"]
    await until(lambda: answer.over)
    assert answer.text == "The capital is Paris."
    # What it prints is the worker's log, without the secrets of the environment.
    assert "child" in run.log and "canary" not in run.log and "[CANARY_API_KEY]" in run.log

    processes = run.processes()
    assert len(processes) == 2
    sampler = DeviceSampler()
    sampler.sample()
    memory = sampler.process_memory(run.one.pid, run.one.ledger)
    sampler.close()
    own = psutil.Process(run.one.pid).memory_info().rss
    assert memory.bytes is not None and memory.bytes > own
    assert memory.source == "resident"

    await run.comparison.close()
    _, alive = psutil.wait_procs(processes, timeout=PATIENCE_S)
    assert not alive


async def test_a_worker_that_is_killed_takes_it_along(opened: Any) -> None:
    run = await opened(profile("leaves"))
    processes = run.processes()
    os.kill(run.one.pid, signal.SIGKILL)
    await until(lambda: run.one.state is State.FAILED)
    _, alive = psutil.wait_procs(processes, timeout=PATIENCE_S)
    assert not alive


async def test_it_may_take_a_while(opened: Any) -> None:
    run = await opened(profile("slow"))
    assert run.one.state is State.READY
    assert "Loading weights" in run.details  # what it printed last, without time and place
    assert not [detail for detail in run.details if "canary" in detail]


async def test_a_program_beside_this_python_is_found(
    opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    run = await opened(profile("ok", program=Path(sys.executable).name))
    assert run.one.state is State.READY, run.one.failure


@pytest.mark.parametrize(
    ("how", "kind", "said"),
    [
        (
            {"behaviour": "dies", "before": ["env", "OLLAMA_HOST=127.0.0.1:{port}"]},
            "server_ended",
            r"the server \(python[\d.]*\) ended with status 3 before it was ready: no such",
        ),
        (
            {"behaviour": "fails"},
            "server_ended",
            r"ended with status 1 before it was ready: ValueError: no room for the KV$",
        ),
        (
            {"behaviour": "never", "timeout_s": 0.5},
            "server_silent",
            r"not ready at http.* within 0\.5 s",
        ),
        (
            {"behaviour": "ok", "program": "no-such-program"},
            "missing_library",
            "cannot start no-such",
        ),
    ],
)
async def test_what_does_not_start_is_one_line(
    opened: Any, how: dict[str, Any], kind: str, said: str
) -> None:
    run = await opened(profile(**how))
    assert run.one.state is State.FAILED
    failure = run.one.failure
    assert failure.kind == kind and failure.hint
    assert re.search(said, failure.reason), failure.reason


async def test_one_that_dies_in_the_middle_ends_the_variant_alone(opened: Any) -> None:
    run = await opened(profile("endless"))
    assert run.one.ready is not None, run.one.failure
    turn = run.comparison.ask("Where?")
    answer: Answer = turn.answers["one"]
    await until(lambda: len(answer.pieces) > 5)
    (server,) = run.processes()
    server.kill()
    await until(lambda: run.one.state is State.FAILED)
    assert run.one.failure.kind == "server_ended"
    assert "was ended by signal 9" in run.one.failure.reason
    assert answer.over and answer.text.startswith("The capital is")
    # And it can be had again.
    run.one.retry()
    await until(lambda: run.one.ready is not None)


def test_a_snapshot_starts_nothing_untrusted() -> None:
    rerun = Rerun(profile("ok"), (0, 1), Plan(()), ())
    line, other = rerun.needs_trust
    assert other == '"other" asks the server at http://127.0.0.1:9/v1'
    assert line.startswith('"one" starts a server: ') and line.endswith("{port}' ok")


def test_a_port_is_for_a_server_started_here() -> None:
    with pytest.raises(
        Exception, match=r"\{port\} in base_url is only for a server that quantchat starts"
    ):
        loads(
            TOML.format(command='["x"]', timeout_s=1).replace(":9/", ":{port}/"),
            where="p.toml",
            folder=Path(),
        )


def test_a_full_disk_under_the_log_does_not_hold_the_server_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Full:
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    ended = threading.Event()
    heard: list[BaseException] = []
    monkeypatch.setattr(sys, "stderr", Full())
    prints = "for n in range(20000): print('a line of the server', n)"  # more than a pipe takes
    how = ServerCommand([sys.executable, "-c", prints], timeout_s=60)
    server = StartedServer(how, "http://127.0.0.1:9/v1", heard.append)
    server.watch(lambda *_: ended.set())
    assert ended.wait(PATIENCE_S)
    assert not heard
