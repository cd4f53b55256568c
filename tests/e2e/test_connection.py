"""A real SSH connection breaks: the program ends and saves its work; under tmux it continues."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from fakes.ssh_server import SshServer, ssh_server
from fakes.terminal import Terminal
from fakes.tmux import SCRIPTED, Tmux, command_line
from fakes.waiting import PATIENCE_S, wait_for
from quantchat.snapshot import recovered, store

BOTH_READY = 2


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
    (kept,) = recovered.recovered_snapshots(tmp_path)
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
    (kept,) = recovered.recovered_snapshots(tmp_path / "snapshots")
    (turn,) = store.load(kept).turns
    assert any(answer.ids for answer in turn.answers)


# ------------------------------------------------------------ tmux


def test_in_tmux_the_client_goes_and_the_program_stays(tmux: Tmux, tmp_path: Path) -> None:
    program = command_line([*SCRIPTED, str(tmp_path)], tmp_path)
    tmux("new-session", "-d", "-x", "100", "-y", "30", program)
    first = tmux.attach()
    both_ready(first)
    first.type("Where?\r")
    first.wait_for_text("Paris.")
    first.process.kill()  # as a connection that drops takes it along
    first.close()
    wait_for(lambda: not tmux("list-clients"), "the client is gone")

    # It goes on without anybody who looks, and is found as it was.
    tmux("send-keys", "And now?", "Enter")
    wait_for(
        lambda: tmux.text.count("Paris.") >= BOTH_READY and "And now?" in tmux.text, "an answer"
    )
    second = tmux.attach()
    second.wait_for_text("And now?", "Paris.")
    tmux("detach-client")
    second.wait_for_exit()
    second.close()
    assert not (tmp_path / "report.json").exists()

    # The session's end is the program's.
    tmux("kill-session")
    wait_for((tmp_path / "report.json").exists, "its end")
    (kept,) = recovered.recovered_snapshots(tmp_path)
    assert [turn.prompt for turn in store.load(kept).turns] == ["Where?", "And now?"]
