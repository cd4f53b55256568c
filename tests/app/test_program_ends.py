"""The real program in a real terminal: its first frame, and every way it can end."""

from __future__ import annotations

import json
import os
import pty
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import quantchat.app
from fakes.terminal import Terminal
from fakes.waiting import PATIENCE_S
from quantchat import paths
from quantchat.app import terminal
from quantchat.app.app import CRASHED
from quantchat.errors import UserError
from quantchat.snapshot import recovered, store

Start = Callable[..., "Session"]

TESTS = Path(__file__).parent.parent
PROGRAM = TESTS / "fakes" / "run_scripted.py"
QUIT, CTRL_C, ENTER = "\x11\x11", "\x03", "\r"
LEFT_ALTERNATE_SCREEN = b"\x1b[?1049l"


@dataclass
class Session:
    """The program in its terminal, and the folder in which it says how it ended."""

    terminal: Terminal
    folder: Path

    def end(self) -> dict[str, Any]:
        self.terminal.wait_for_exit()
        return self.report()

    def kept(self) -> list[Path]:
        return recovered.recovered_snapshots(self.folder)

    def report(self) -> dict[str, Any]:
        self.terminal.process.wait(PATIENCE_S)
        report: dict[str, Any] = json.loads((self.folder / "report.json").read_text())
        return report


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the program, with further arguments if need be, and waits until it is ready."""
    sessions: list[Session] = []

    def start(*more: str, ready: bool = True, term: str = "xterm-256color") -> Session:
        terminal = Terminal(
            [sys.executable, str(PROGRAM), str(tmp_path), *more],
            columns=100,
            rows=30,
            env={
                "TERM": term,
                "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]),
                "QUANTCHAT_LOGS": str(tmp_path / "logs"),
            },
        )
        sessions.append(Session(terminal, tmp_path))
        if ready:
            terminal.wait_for(lambda: terminal.text.count("● ready") == 2, "both variants")
        return sessions[-1]

    yield start
    for session in sessions:
        session.terminal.close()


def test_quit_leaves_the_terminal_as_it_was(start: Start) -> None:
    session = start()
    session.terminal.type(QUIT)
    report = session.end()
    assert report["status"] == 0 and report["closed"] == [True, True]
    assert LEFT_ALTERNATE_SCREEN in session.terminal.received
    # Not even loading and quitting needed one of the ML libraries.
    heavy = {"torch", "transformers", "bitsandbytes", "gptqmodel", "tokenizers", "numpy"}
    assert not heavy & set(report["modules"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_is_a_clean_end(start: Start, number: signal.Signals) -> None:
    session = start()
    session.terminal.process.send_signal(number)
    report = session.end()
    assert report["status"] == 128 + number and report["closed"] == [True, True]
    assert LEFT_ALTERNATE_SCREEN in session.terminal.received
    assert session.kept() == []  # nothing was said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_what_nobody_saved_is_kept_and_offered(start: Start, number: signal.Signals) -> None:
    session = start("--slow")
    session.terminal.type("Where?" + ENTER)
    session.terminal.wait_for_text("Paris.", "The sea is wide.")
    session.terminal.process.send_signal(number)  # in the middle of an answer
    session.end()
    (kept,) = session.kept()
    assert f"was kept in {kept}".encode() in session.terminal.received.replace(b"\r\n", b"")
    (turn,) = store.load(kept).turns
    assert turn.prompt == "Where?"
    assert turn.answers[0].text == "The capital of France is Paris."
    assert turn.answers[1].text.startswith("The sea is wide.")
    again = start(ready=False)
    again.terminal.wait_for_text("Recovered: not saved before")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_loop_that_is_stuck_is_ended_and_loses_nothing(
    start: Start, number: signal.Signals
) -> None:
    session = start("--stuck")
    session.terminal.type("Where?" + ENTER)
    session.terminal.wait_for_text("Paris.")
    session.terminal.type("\x14")  # Ctrl+T
    session.terminal.wait_for(lambda: asleep_reading(session.terminal.process.pid), "it is stuck")
    session.terminal.process.send_signal(number)
    assert session.terminal.wait_for_exit() == 128 + number
    (kept,) = session.kept()
    assert store.load(kept).turns[0].prompt == "Where?"
    assert LEFT_ALTERNATE_SCREEN in session.terminal.received
    assert f"was kept in {kept}".encode() in session.terminal.received.replace(b"\r\n", b"")


@pytest.mark.parametrize("last", ["hangs", "fails", "is done", "has nothing to do"])
def test_an_end_is_certain_whatever_keeping_does(
    monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    ended, never, said = queue.SimpleQueue[int](), threading.Event(), list[str]()

    def keep() -> list[str]:
        if last == "hangs":
            never.wait()
        if last == "fails":
            raise RuntimeError
        return ["kept in x"] if last == "is done" else []

    monkeypatch.setattr(terminal, "CLEANUP_S", 0.0)
    monkeypatch.setattr(terminal, "SAVE_S", 0.01 if last == "hangs" else PATIENCE_S)
    monkeypatch.setattr(terminal, "_write_to_tty", said.extend)
    monkeypatch.setattr(threading, "excepthook", lambda failed: None)
    monkeypatch.setattr(os, "_exit", ended.put)
    terminal.force_end_later(143, keep)
    assert ended.get(timeout=PATIENCE_S) == 143
    never.set()
    lost = ["unsaved work could not be saved in time"]
    assert said == {"is done": ["kept in x"], "has nothing to do": []}.get(last, lost)


def asleep_reading(pid: int) -> bool:
    """Whether the main thread waits for a pipe that is read, and not for events."""
    return "pipe" in Path(f"/proc/{pid}/wchan").read_text()


@pytest.mark.parametrize("how", ["", "--deaf"])
def test_a_terminal_that_goes_away_takes_the_workers_with_it(start: Start, how: str) -> None:
    """With SIGHUP, as a rule; to a process that is deaf to it, as under nohup, without."""
    session = start(how)
    session.terminal.type("Where?" + ENTER)
    session.terminal.wait_for_text("capital")
    session.terminal.hang_up()
    report = session.report()
    assert report["status"] == 128 + signal.SIGHUP and report["closed"] == [True, True]
    assert len(session.kept()) == 1


def test_deaf_to_sighup_it_stays_while_its_terminal_does(start: Start) -> None:
    session = start("--deaf")
    session.terminal.process.send_signal(signal.SIGHUP)
    session.terminal.type("Where?" + ENTER)
    session.terminal.wait_for_text("Paris.")
    session.terminal.type(QUIT)
    assert session.end()["status"] == 0


def test_what_is_written_to_descriptor_2_does_not_reach_the_screen(start: Start) -> None:
    session = start()
    session.terminal.type("Where?" + ENTER)
    session.terminal.wait_for_text("Paris.")
    session.terminal.type(QUIT)
    session.end()
    assert b"native noise" not in session.terminal.received
    (log,) = (session.folder / "logs").glob("*-screen-*.log")
    assert "native noise" in log.read_text()


def test_a_mistake_of_ours_is_told_and_ends_nothing(start: Start) -> None:
    session = start("--broken")
    session.terminal.type("\x14")  # Ctrl+T
    session.terminal.wait_for_text("RuntimeError: a mistake of ours")
    session.terminal.type("\x1bOP")  # F1: a screen that cannot be made hears no key

    def hears() -> bool:
        """Type a letter and look for it: keys are lost until the broken screen is gone."""
        session.terminal.type("W")
        return "▌ W" in session.terminal.text

    session.terminal.wait_for(hears, "the prompt hears keys again")
    session.terminal.type("here?" + ENTER)
    session.terminal.wait_for_text("Paris.")
    session.terminal.type(QUIT)
    report = session.end()
    assert report["status"] == 0 and report["closed"] == [True, True]
    (log,) = (session.folder / "logs").glob("*-screen-*.log")
    assert "a mistake of ours" in log.read_text()
    said = b"continued after an internal error; see " + str(log).encode()
    assert said in session.terminal.received.replace(b"\r\n", b"")


def test_a_screen_that_cannot_be_drawn_at_all_ends_and_says_so(start: Start) -> None:
    session = start("--unmade", ready=False)
    report = session.end()
    assert report["status"] == CRASHED
    (log,) = (session.folder / "logs").glob("*-screen-*.log")
    assert max(map(len, log.read_text().splitlines())) > 20  # whatever the terminal's width
    assert "a mistake of ours" in log.read_text()
    said = b"the screen ended with an internal error; see " + str(log).encode()
    assert said in session.terminal.received.replace(b"\r\n", b"")


def threads(session: Session) -> int:
    return len(list(Path(f"/proc/{session.terminal.process.pid}/task").iterdir()))


@pytest.mark.parametrize("times", [1, 2])
def test_after_it_was_stopped_it_is_drawn_and_obeys(start: Start, times: int) -> None:
    session = start()
    session.terminal.type("Where?" + ENTER)
    session.terminal.wait_for_text("Paris.")
    before = threads(session)
    for _ in range(times):
        session.terminal.process.send_signal(signal.SIGSTOP)
        session.terminal.wait_for(lambda: state(session.terminal.process.pid) == "T", "it stops")
        session.terminal.screen.reset()  # as a shell that writes in between
        session.terminal.process.send_signal(signal.SIGCONT)
        session.terminal.wait_for_text("Paris.", "Where?")
    assert threads(session) <= before
    session.terminal.type(QUIT)
    assert session.end()["status"] == 0


def state(pid: int) -> str:
    """The state of a process, as proc(5) has it: T is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_ctrl_c_ends_nothing(start: Start) -> None:
    session = start()
    session.terminal.type(CTRL_C)
    session.terminal.type("Where?" + ENTER)
    session.terminal.wait_for_text("Paris.")
    session.terminal.type(QUIT)
    assert session.end()["status"] == 0


def test_without_a_terminal_it_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: SIM115, PTH123
    with pytest.raises(UserError, match="needs a terminal"):
        quantchat.app.run(None, snapshots=None)


@pytest.mark.parametrize("kind", ["dumb", "unknown"])
def test_a_terminal_that_can_only_print_is_refused_before_the_screen(
    start: Start, kind: str
) -> None:
    session = start(ready=False, term=kind)
    session.terminal.wait_for_exit()
    assert b"\x1b" not in session.terminal.received
    assert f"terminal with TERM={kind}".encode() in session.terminal.received


@pytest.mark.parametrize("kind", ["", "linux"])
def test_any_other_terminal_is_drawn_on(start: Start, kind: str) -> None:
    session = start(term=kind)
    session.terminal.type(QUIT)
    assert session.end()["status"] == 0


def test_hung_up_is_told_from_quiet() -> None:
    master, slave = pty.openpty()
    assert not terminal.is_hung_up(slave)
    os.close(master)
    assert terminal.is_hung_up(slave)
    os.close(slave)
    assert terminal.is_hung_up(slave)
    assert terminal.is_hung_up(-1)


def test_the_guard_gives_the_descriptor_back() -> None:
    before = os.fstat(2).st_ino
    with terminal.guarded_stderr() as log:
        assert os.fstat(2).st_ino == log.stat().st_ino
        assert log.stat().st_mode & 0o077 == 0
        assert sys.__stderr__ is not None
        assert os.fstat(sys.__stderr__.fileno()).st_ino == before
    assert os.fstat(2).st_ino == before
    assert list(paths.logs_dir().iterdir()) == []  # nothing was written


def test_a_log_that_cannot_be_written_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "logs").write_text("a file is in the way")
    for stream in ("stdin", "stderr"):
        monkeypatch.setattr(f"sys.{stream}.isatty", lambda: True, raising=False)
    with pytest.raises(UserError, match="log cannot be written"):
        quantchat.app.run(None, snapshots=None)


@pytest.mark.parametrize("variable", ["SSH_CONNECTION", "SSH_TTY"])
def test_over_ssh_there_are_fewer_frames(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    for name in ("TEXTUAL_FPS", "TEXTUAL_ANIMATIONS"):
        monkeypatch.delenv(name, raising=False)
    assert not terminal.over_ssh()
    terminal.configure_textual()
    assert os.environ["TEXTUAL_FPS"] == "60"
    monkeypatch.delenv("TEXTUAL_FPS")
    monkeypatch.setenv(variable, "x")
    terminal.configure_textual()
    assert os.environ["TEXTUAL_FPS"] == "30"


@pytest.mark.parametrize("remote", [False, True])
def test_few_bytes_are_chosen_or_refused(monkeypatch: pytest.MonkeyPatch, remote: bool) -> None:
    monkeypatch.setattr(terminal, "_chosen", None)
    if remote:
        monkeypatch.setenv("SSH_CONNECTION", "x")
    assert terminal.pace() == (terminal.REMOTE if remote else terminal.LOCAL)
    for few, expected in ((True, terminal.LOW_BANDWIDTH), (False, terminal.LOCAL)):
        monkeypatch.delenv("TEXTUAL_FPS", raising=False)
        terminal.configure_textual(few)
        assert terminal.pace() == expected
        assert os.environ["TEXTUAL_FPS"] == str(expected.frames_per_second)
    terminal.configure_textual()
    assert terminal.pace() == (terminal.REMOTE if remote else terminal.LOCAL)
