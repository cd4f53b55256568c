"""Starting a worker: an interruption at any moment leaves no process behind."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import sys
from pathlib import Path

import psutil
import pytest

from fakes.waiting import until
from quantchat import paths
from quantchat.host import worker_process
from quantchat.host.logs import new_log
from quantchat.host.worker_process import Place, WorkerEnded, start_worker
from quantchat.wire.messages import Failed, Generate, Hello, Sampling

pytestmark = pytest.mark.usefixtures("own_folders")


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def children() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):  # gone meanwhile
            if child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
    return found


@pytest.mark.parametrize("steps", range(8))
async def test_cancelled_while_it_starts(steps: int) -> None:
    """However far it came: no process, no pipe."""
    before, others = open_files(), children()
    starting = asyncio.ensure_future(start_worker(Place("test")))
    for _ in range(steps):
        await asyncio.sleep(0)
    if not starting.done():
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        await until(lambda: set(children()) <= set(others))
    else:
        await starting.result().close()
    await until(lambda: open_files() <= before)


async def test_a_full_disk_of_logs_does_not_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it would print of a command that it cannot do has no room; what it tells has."""
    monkeypatch.setattr(worker_process, "new_log", lambda label: Path("/dev/full"))
    worker = await start_worker(Place("test"))
    for _ in range(2):
        worker.send(Generate(1, [], Sampling(), 1))  # before a model is loaded
    told: list[Failed] = []
    async for event in worker.events():
        if isinstance(event, Failed):
            told.append(event)
        if len(told) == 2:
            break
    await worker.close()
    assert [failed.kind for failed in told] == ["internal", "internal"]


async def test_closed_at_once() -> None:
    worker = await start_worker(Place("test"))
    await worker.close()
    await worker.close()
    assert not psutil.pid_exists(worker.pid)


async def test_what_it_writes_is_its_users_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    before = os.umask(0)  # of a user whose files anybody may write
    try:
        worker = await start_worker(Place("test"))
        await worker.close()
    finally:
        os.umask(before)
    assert worker.log.stat().st_mode & 0o777 == 0o600
    for folder in (paths.logs_dir(), paths.cache_dir(), paths.cache_dir() / "compiled"):
        assert folder.stat().st_mode & 0o777 == 0o700, folder


async def surroundings(place: Place) -> dict[str, str]:
    """The environment of a worker that has begun: until then it may read as none."""
    worker = await start_worker(place)
    try:
        await anext(worker.events())
        return psutil.Process(worker.pid).environ()
    finally:
        await worker.close()


def test_each_start_has_a_log_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.strftime", lambda form: "20261103-142501")
    logs = [new_log("GPTQ 4-bit") for _ in range(3)]
    pid = os.getpid()
    assert [log.name for log in logs] == [
        f"20261103-142501-gptq-4-bit-{pid}{more}.log" for more in ("", "-2", "-3")
    ]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES])
def test_a_log_that_has_no_room_is_done_without(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "touch", full)
    if number == errno.EACCES:
        with pytest.raises(PermissionError):
            new_log("test")
    else:
        assert new_log("test") == Path("/dev/null")


@pytest.mark.parametrize("named", [False, True])
async def test_it_finds_the_tools_beside_its_interpreter(
    named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ninja, which pip has put there: an environment need not be activated for a kernel's build."""
    monkeypatch.setenv("PATH", "/nowhere")
    other = tmp_path / "bin" / "python"
    other.parent.mkdir()
    other.symlink_to(sys.executable)
    found = await surroundings(Place("test", str(other) if named else None))
    path = found["PATH"].split(os.pathsep)
    beside = other.parent if named else Path(sys.executable).parent
    assert path == ["/nowhere", str(beside)]


@pytest.mark.parametrize("own", ["", "max_split_size_mb:512"])
async def test_each_engine_has_the_same_allocator(
    own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GPTQModel sets another one than torch's default where nothing is said of it."""
    monkeypatch.delenv("PYTORCH_ALLOC_CONF", raising=False)
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", own)
    found = await surroundings(Place("test"))
    assert found["PYTORCH_ALLOC_CONF"] == (own or "expandable_segments:False")


@pytest.mark.parametrize("own", ["", "7"])
async def test_its_libraries_take_no_more_cpus_than_it_may_use(
    own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenMP looks at no CPU quota; what the user has set stands."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if own:
        monkeypatch.setenv("OMP_NUM_THREADS", own)
    monkeypatch.setattr("quantchat.host.worker_process.compute_threads", lambda: 3)
    found = await surroundings(Place("test"))
    assert found["OMP_NUM_THREADS"] == (own or "3")


async def test_it_says_hello_first() -> None:
    worker = await start_worker(Place("test"))
    events = worker.events()
    assert isinstance(await anext(events), Hello)
    await worker.close()
    with pytest.raises(WorkerEnded):
        while True:
            await anext(events)
