"""A real SSH connection breaks: the program ends and saves its work; under tmux it continues."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from fakes.ssh_server import SshServer, ssh_server
from fakes.terminal import Terminal
from fakes.waiting import PATIENCE_S
from quantchat.snapshot import recovered, store

TESTS = Path(__file__).parent.parent
SCRIPTED = [sys.executable, str(TESTS / "fakes" / "run_scripted.py")]
BOTH_READY = 2


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def environment(folder: Path) -> dict[str, str]:
    return {
        "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]),
        "QUANTCHAT_LOGS": str(folder / "logs"),
        "LC_ALL": "C.UTF-8",
    }


def command_line(command: list[str], folder: Path, **more: str) -> str:
    """For a shell at the other end, which has no environment of ours."""
    variables = {**environment(folder), **more}
    named = [f"{name}={value}" for name, value in variables.items()]
    return shlex.join(["env", *named, *command])


def both_ready(terminal: Terminal) -> None:
    terminal.wait_for(lambda: terminal.text.count("● ready") == BOTH_READY, "both sides ready")


# ------------------------------------------------------------ SSH


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SshServer]:
    (tmp_path / "ssh").mkdir(mode=0o700)
    with ssh_server(tmp_path / "ssh") as server:
        yield server


def cut_at_the_clients_side(server: SshServer, terminal: Terminal) -> None:
    terminal.process.kill()


def cut_at_the_servers_side(server: SshServer, terminal: Terminal) -> None:
    for session in server.sessions():
        for process in (*session.children(), session):
            with contextlib.suppress(psutil.NoSuchProcess):  # gone with the one before it
                if "sshd" in process.name():
                    process.kill()


@pytest.mark.parametrize("cut", [cut_at_the_clients_side, cut_at_the_servers_side])
def test_the_connection_is_cut(
    server: SshServer, tmp_path: Path, cut: Callable[[SshServer, Terminal], None]
) -> None:
    program = command_line([*SCRIPTED, str(tmp_path), "--slow"], tmp_path)
    terminal = Terminal([*server.client, program], columns=100, rows=30)
    try:
        both_ready(terminal)
        terminal.type("Where?\r")
        terminal.wait_for_text("The sea is wide.")
        processes = server.running("run_scripted")
        assert processes
        cut(server, terminal)
        _, alive = psutil.wait_procs(processes, timeout=PATIENCE_S)
        assert not alive
    finally:
        terminal.close()
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["status"] == 128 + signal.SIGHUP and report["closed"] == [True, True]
    (kept,) = recovered.waiting(tmp_path)
    assert store.load(kept).turns[0].prompt == "Where?"


@pytest.mark.model
def test_the_connection_is_cut_while_a_real_worker_answers(
    server: SshServer, demo_cache: Path, tmp_path: Path
) -> None:
    program = command_line(
        [sys.executable, "-m", "quantchat", "demo", "--snapshots", str(tmp_path / "snapshots")],
        tmp_path,
        QUANTCHAT_CACHE=str(demo_cache),
        QUANTCHAT_CONFIG=str(tmp_path / "config"),
    )
    terminal = Terminal([*server.client, program])
    try:
        terminal.wait_for_text("● ready")  # the other one may still load
        terminal.type("Write a very long story about the sea.\r")
        terminal.wait_for_match(r"TTFT +[\d,]+ ms")
        workers: list[psutil.Process] = []

        def both_started() -> bool:
            workers[:] = server.running("bootstrap.py")
            return len(workers) == BOTH_READY

        terminal.wait_for(both_started, "both workers")
        everything = [*server.running("quantchat"), *workers]
        terminal.process.kill()
        _, alive = psutil.wait_procs(everything, timeout=PATIENCE_S)
        assert not alive
    finally:
        terminal.close()
    (kept,) = recovered.waiting(tmp_path / "snapshots")
    (turn,) = store.load(kept).turns
    assert any(answer.ids for answer in turn.answers)


# ------------------------------------------------------------ tmux


@dataclass(frozen=True)
class Tmux:
    """A tmux server of our own."""

    folder: Path
    name: str

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run(
            ["tmux", "-u", "-L", self.name, "-f", os.devnull, *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, **environment(self.folder), "TMUX_TMPDIR": str(self.folder)},
            check=True,
        )
        return done.stdout

    def attach(self) -> Terminal:
        return Terminal(
            ["tmux", "-u", "-L", self.name, "attach"],
            columns=100,
            rows=30,
            env={**environment(self.folder), "TMUX_TMPDIR": str(self.folder)},
        )

    @property
    def text(self) -> str:
        return self("capture-pane", "-p")


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Tmux]:
    if shutil.which("tmux") is None:
        pytest.skip("not installed: tmux")
    tmux = Tmux(tmp_path, uuid.uuid4().hex[:8])
    yield tmux
    subprocess.run(
        ["tmux", "-L", tmux.name, "kill-server"],
        env={**os.environ, "TMUX_TMPDIR": str(tmp_path)},
        capture_output=True,
        check=False,
    )


def test_in_tmux_the_client_goes_and_the_program_stays(tmux: Tmux, tmp_path: Path) -> None:
    program = command_line([*SCRIPTED, str(tmp_path)], tmp_path)
    tmux("new-session", "-d", "-x", "100", "-y", "30", program)
    first = tmux.attach()
    both_ready(first)
    first.type("Where?\r")
    first.wait_for_text("Paris.")
    first.process.kill()  # as a connection that drops takes it along
    first.close()
    until(lambda: not tmux("list-clients"), "the client is gone")

    # It goes on without anybody who looks, and is found as it was.
    tmux("send-keys", "And now?", "Enter")
    until(lambda: tmux.text.count("Paris.") >= BOTH_READY and "And now?" in tmux.text, "an answer")
    second = tmux.attach()
    second.wait_for_text("And now?", "Paris.")
    tmux("detach-client")
    second.wait_for_exit()
    second.close()
    assert not (tmp_path / "report.json").exists()

    # The session's end is the program's.
    tmux("kill-session")
    until((tmp_path / "report.json").exists, "its end")
    (kept,) = recovered.waiting(tmp_path)
    assert [turn.prompt for turn in store.load(kept).turns] == ["Where?", "And now?"]
