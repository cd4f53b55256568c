"""A command or worker that ends removes its temporary files, at the latest at the next start."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

import quantchat
from fakes.waiting import PATIENCE_S, until
from quantchat.console.ending import like_ctrl_c
from quantchat.host import scratch
from quantchat.host.scratch import Scratch, sweep
from quantchat.host.worker_process import Place, start_worker

OWNER = Path(__file__).parents[2] / "fakes" / "session_owner.py"
SIGNALS = [signal.SIGTERM, signal.SIGHUP, signal.SIGINT]


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_folders: None) -> Path:
    """Where temporary files lie meanwhile."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


def inside(folder: Path) -> list[Path]:
    return list(folder.iterdir())


# ---------------------------------------------------------------- workers


async def test_a_workers_temporary_files_go_with_it(temporary: Path) -> None:
    worker = await start_worker(Place("test"))
    (folder,) = inside(temporary)
    await anext(worker.events())
    assert psutil.Process(worker.pid).environ()["TMPDIR"] == str(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    (folder / "offload").mkdir()
    (folder / "offload" / "model.safetensors").write_bytes(b"1")
    await worker.close()
    await worker.close()
    assert inside(temporary) == []


async def test_those_of_a_worker_whose_owner_was_killed_go_with_the_next_start(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = await asyncio.create_subprocess_exec(
        sys.executable, str(OWNER), "worker", sys.executable, stdout=subprocess.PIPE
    )
    assert owner.stdout is not None
    await owner.stdout.readline()
    (left,) = inside(temporary)
    (left / "model.safetensors").write_bytes(b"1")
    sweep()
    assert left.exists()  # its owner lives
    owner.kill()
    await owner.wait()
    assert left.exists()
    monkeypatch.setattr(scratch, "_swept", type(scratch._swept)())
    worker = await start_worker(Place("test"))
    await until(lambda: not left.exists())
    await worker.close()
    assert inside(temporary) == []


def test_a_folder_that_is_no_dead_owners_stays(temporary: Path) -> None:
    (temporary / "quantchat-worker-file").touch()
    (temporary / "quantchat-worker-link").symlink_to(temporary)
    (temporary / "quantchat-other").mkdir()
    mine = Scratch()
    names = {path.name for path in temporary.iterdir()}
    sweep()
    assert {path.name for path in temporary.iterdir()} == names
    mine.remove()
    mine.remove()
    assert not mine.path.exists()


def test_one_that_is_swept_before_it_is_locked_is_made_again(
    monkeypatch: pytest.MonkeyPatch, temporary: Path
) -> None:
    lock, swept = scratch._lock, list[Path]()

    def too_late(path: Path) -> int | None:
        if not swept:
            swept.append(path)
            path.rmdir()
        return lock(path)

    monkeypatch.setattr(scratch, "_lock", too_late)
    mine = Scratch()
    assert [mine.path] == list(temporary.iterdir())
    mine.remove()


# ---------------------------------------------------------------- commands


@pytest.fixture
def silent_index() -> Iterator[str]:
    """The address of a package index that never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/simple"


def left(folder: Path) -> list[str]:
    """What lies in `folder` but for locks and what was there to begin with."""
    found = [path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir()]
    return [str(path) for path in found if path.suffix not in (".lock", ".log", ".txt")]


Begun = Callable[[Path], bool]
COMMANDS: dict[str, tuple[list[str], Begun]] = {
    "env create": (
        ["env", "create", "tiny", "-r", "wanted.txt"],
        lambda cache: (cache / "environments/tiny/bin/python").exists(),
    ),
    "quantize": (
        ["quantize", "demo", "--no-perplexity"],
        lambda cache: any((cache / "checkpoints/.parts").glob("*/scratch")),
    ),
}


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("command", COMMANDS)
async def test_a_command_that_is_ended_cleans_up(
    tmp_path: Path, silent_index: str, command: str, number: signal.Signals
) -> None:
    words, begun = COMMANDS[command]
    (tmp_path / "wanted.txt").write_text("tiny_thing\n")

    def hear_all() -> None:
        for one in SIGNALS:  # what the tests were started with may be to ignore them
            signal.signal(one, signal.default_int_handler if one == signal.SIGINT else 0)

    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "quantchat",
        *words,
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(Path(quantchat.__file__).parents[1]),
            "PIP_INDEX_URL": silent_index,
        },
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=hear_all,
    )
    cache = tmp_path / "cache"
    await until(lambda: begun(cache) or process.returncode is not None)
    process.send_signal(number)
    _, said = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    assert process.returncode == 128 + number, said.decode()
    assert left(cache) == []
    assert inside(tmp_path / "temporary") == []
    assert b"Traceback" not in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN])
def test_a_signal_interrupts_what_is_not_asyncios_too(
    number: signal.Signals, handler: signal.Handlers
) -> None:
    before = signal.signal(signal.SIGINT, handler), signal.signal(number, signal.SIG_DFL)
    try:
        with like_ctrl_c() as ending:
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
            signal.raise_signal(number)  # once: cleaning up goes on
            assert ending.status == 128 + number
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        for one, old in zip((signal.SIGINT, number), before, strict=True):
            signal.signal(one, old)


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with like_ctrl_c():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
