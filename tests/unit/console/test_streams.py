"""Control sequences are removed from stdout, stderr, consoles and completion."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.markup import render
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

import quantchat
from fakes.hostile_text import CUT, SAMPLE, named, payload
from fakes.scripted_worker import Script, ScriptedProvider, starter
from fakes.terminal_controls import Tokens
from fakes.timed_snapshots import measured
from quantchat.cli import root
from quantchat.console import running
from quantchat.console.console import console
from quantchat.console.progress import progress_display
from quantchat.console.running import publish
from quantchat.console.stages import stage_display
from quantchat.console.streams import NeutralStream, neutral_output
from quantchat.errors import UserError
from quantchat.features.measure.printing import measure_and_print as run
from quantchat.measuring.rounds import Plan, Task
from quantchat.profile.model import Profile
from quantchat.session.comparison import Comparison
from quantchat.snapshot import store
from quantchat.text import neutralise
from quantchat.wire import messages

EVIL = "".join(payload(number) for number in SAMPLE).replace(CUT, "")
EVIL_UTF8 = EVIL.encode("utf-8", "ignore").decode()


class Tty(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def controls(text: str) -> set[str]:
    """The controls in `text`, whole and broken ones."""
    tokens = Tokens()
    found = {token.raw for token in tokens.feed(text.encode()) if token.kind != "text"}
    return found | ({tokens.pending} if tokens.pending else set())


def test_there_is_something_to_guard_against() -> None:
    assert len(controls(EVIL_UTF8)) > 200


# ---------------------------------------------------------------- stdout and stderr


@given(st.lists(st.text(st.characters(codec="utf-8"))))
def test_a_stream_marks_whatever_is_written(pieces: list[str]) -> None:
    raw = io.StringIO()
    stream = NeutralStream(raw)
    for piece in pieces:
        assert stream.write(piece) == len(piece)  # as TextIO says: of what was given
    stream.writelines(pieces)
    assert raw.getvalue() == neutralise("".join(pieces)) * 2


def test_a_stream_has_no_way_round_it() -> None:
    with pytest.raises(AttributeError):
        NeutralStream(sys.stdout).buffer  # type: ignore[attr-defined]  # noqa: B018


def test_a_stream_is_as_the_one_below(tmp_path: Path) -> None:
    with (tmp_path / "f").open("w", encoding="utf-8", errors="replace") as raw:
        stream = NeutralStream(raw)
        assert (stream.encoding, stream.errors) == ("utf-8", "replace")
        assert stream.fileno() == raw.fileno()
        assert not stream.isatty()
        stream.write("a")
        stream.flush()
        assert (tmp_path / "f").read_text() == "a"
    assert NeutralStream(Tty()).isatty()
    with pytest.raises(OSError):
        NeutralStream(io.StringIO()).fileno()


def test_within_the_context_both_are_guarded(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr, sys.excepthook
    try:
        with neutral_output():
            print(EVIL)  # noqa: T201 - as a library would
            sys.stderr.write(EVIL)
    finally:
        sys.excepthook = before[2]
    assert (sys.stdout, sys.stderr) == before[:2]
    printed = capsys.readouterr()
    assert printed.out == neutralise(EVIL) + "\n"
    assert printed.err == neutralise(EVIL)


@pytest.mark.parametrize(
    "guarded", ["with neutral_output():\n    {}", "with neutral_output(): pass\n{}"]
)
def test_a_traceback_is_neutral_within_and_after(guarded: str) -> None:
    raising = r"raise RuntimeError('a \x1b]52;c;eA==\x07 b \u202e')"
    code = "from quantchat.console.streams import neutral_output\n" + guarded.format(raising)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(Path(quantchat.__file__).parents[1]), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.endswith("RuntimeError: a ␛]52;c;eA==␇ b ⟨202E⟩\n")
    assert controls(done.stderr) == {"\n"}


# ---------------------------------------------------------------- a full disk

FULL = (
    "quantchat: standard output: cannot be written: No space left on device (free disk space, or "
)


def started(folder: Path, *words: str, **streams: Any) -> subprocess.CompletedProcess[str]:
    """The program, with folders of its own and `streams` as `subprocess.run` takes them."""
    names = ("CACHE", "CONFIG", "SNAPSHOTS")
    return subprocess.run(
        [sys.executable, "-m", "quantchat", *words],
        env={
            "PYTHONPATH": str(Path(quantchat.__file__).parents[1]),
            **{f"QUANTCHAT_{name}": str(folder) for name in names},
        },
        encoding="utf-8",
        check=False,
        **streams,
    )


@pytest.mark.parametrize(
    "words",
    [
        ["--help"], ["profiles"], ["schema", "profile"], ["cache"], ["env"],
        ["snapshots"], ["snapshots", "show", "{saved}"], ["compare", "{saved}", "--json"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_output_without_room_is_one_line_and_no_failed_gate(
    tmp_path: Path, words: list[str]
) -> None:
    saved = store.save(measured(), tmp_path)
    with Path("/dev/full").open("w") as full:
        done = started(
            tmp_path,
            *(word.format(saved=saved) for word in words),
            stdout=full,
            stderr=subprocess.PIPE,
        )
    assert done.stderr.startswith(FULL)
    assert done.stderr.count("\n") == 1
    assert done.returncode == 2


def test_messages_without_room_change_no_exit_status(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = started(tmp_path, "profiles", "show", "no-such", stdout=subprocess.PIPE, stderr=full)
    assert (done.returncode, done.stdout) == (2, "")


def test_a_measurement_names_its_file_though_the_output_has_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Path("/dev/full").open("w") as full, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", full)
        with neutral_output(), pytest.raises(UserError, match="No space left"):
            publish(measured(), tmp_path, None)
    (saved,) = tmp_path.iterdir()
    assert capsys.readouterr().err == f"saved {saved}\n"


def test_a_measurement_is_printed_though_it_cannot_be_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    snapshot = measured()
    with pytest.raises(UserError, match="cannot save the snapshot"):
        publish(snapshot, tmp_path / "file", None)
    out, err = capsys.readouterr()
    assert store.loads(out.encode(), where="stdout") == snapshot
    assert err == ""


def test_a_measurement_is_printed_though_the_share_hangs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    monkeypatch.setattr(store, "write_new", lambda path, data: answers.wait())
    monkeypatch.setattr(running, "PRINT_AFTER_S", 0.0)
    monkeypatch.setattr(running, "SAVE_S", 0.0)
    snapshot = measured()
    with pytest.raises(UserError, match="did not answer"):
        publish(snapshot, tmp_path, None)
    answers.set()
    assert store.loads(capsys.readouterr().out.encode(), where="stdout") == snapshot


@pytest.mark.parametrize("words", [("run", "demo"), ("score", "demo"), ("rerun", "{saved}")])
def test_a_folder_that_cannot_be_written_is_told_before_anything_is_measured(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    saved = store.save(measured(), tmp_path)
    (tmp_path / "file").touch()
    asked = (word.format(saved=saved) for word in words)
    done = started(tmp_path, *asked, "--save", str(tmp_path / "file" / "x"), capture_output=True)
    assert (done.returncode, done.stdout) == (2, "")
    told = [line for line in done.stderr.splitlines() if "left out" not in line]
    assert len(told) == 1 and "file/x: cannot save the snapshot" in told[0]


# ---------------------------------------------------------------- a reader that has ended


@pytest.fixture
def nobody() -> Iterator[TextIO]:
    """A pipe that nobody reads any more."""
    read, write = os.pipe()
    os.close(read)
    with contextlib.suppress(BrokenPipeError), os.fdopen(write, "w") as stream:
        yield stream


@pytest.mark.parametrize(
    "words",
    [
        ["--help"], ["snapshots", "show", "{saved}"],
        ["compare", "{saved}", "--fail-if", "b.decode_tps < 0.1*a.decode_tps"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_output_that_nobody_reads_changes_no_exit_status(
    tmp_path: Path, words: list[str], nobody: TextIO
) -> None:
    saved = store.save(measured(), tmp_path)
    asked = (word.format(saved=saved) for word in words)
    done = started(tmp_path, *asked, stdout=nobody, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, "")


def test_messages_that_nobody_reads_change_no_exit_status(tmp_path: Path, nobody: TextIO) -> None:
    done = started(tmp_path, "profiles", "show", "no-such", stdout=subprocess.PIPE, stderr=nobody)
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize("gone", ["stdout", "stderr", "both"])
@pytest.mark.parametrize("as_json", [True, False])
def test_a_run_that_nobody_watches_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nobody: TextIO, gone: str, as_json: bool
) -> None:
    """As in `quantchat run … 2>&1 | head -3`, whose reader has ended before it has loaded."""
    scripts = {"A": Script(), "B": Script()}
    plain = {"engine": "transformers", "model": "not/loaded"}
    profile = {"name": "Two", "variants": [{**plain, "label": label} for label in scripts]}
    (tmp_path / "logs").mkdir()
    sides = Comparison(
        Profile.model_validate(profile),
        provider=ScriptedProvider(scripts),
        start=starter(scripts, tmp_path / "logs"),
    )
    for name in ("stdout", "stderr"):
        if gone in (name, "both"):
            monkeypatch.setattr(sys, name, nobody)
    with neutral_output():
        status = run(sides, Plan((Task("one"),), rounds=1, warmup=0), tmp_path, as_json=as_json)
    assert status == 0
    (saved,) = tmp_path.glob("*.json")
    assert len(store.load(saved).turns) == 1


@pytest.mark.parametrize("display", [progress_display, stage_display])
def test_progress_that_nobody_reads_stands_in_no_ones_way(
    monkeypatch: pytest.MonkeyPatch, nobody: TextIO, display: Any
) -> None:
    monkeypatch.setattr(sys, "stderr", nobody)
    with neutral_output(), display() as shown:
        for stage in ("loading", "compiling", "warming up"):
            told = shown if display is stage_display else functools.partial(shown.on_model, "A")
            told(messages.Progress(stage))


# ---------------------------------------------------------------- the consoles


def test_a_console_lets_only_its_own_controls_through(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Tty()
    monkeypatch.setattr(sys, "stdout", NeutralStream(terminal))
    monkeypatch.setenv("TERM", "xterm-256color")
    table = Table(title=EVIL)
    table.add_column(EVIL, style="bold")
    table.add_row(EVIL)
    out = console()
    linked = Text(EVIL, style="link http://h/")
    out.print(EVIL, table, Text("plain", style="green"), linked, width=200)
    printed = terminal.getvalue()
    assert {"\x1b[1m", "\x1b[32m"} <= controls(printed)  # its styles
    ours = {"\n", "\x1b[0m", "\x1b[1m", "\x1b[3m", "\x1b[32m"}
    assert not {c for c in controls(printed) - ours if not c.startswith("\x1b]8;")}
    assert not {c for c in controls(printed) if named(c)}


def test_a_console_parses_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    assert render("[red]x[/]").plain == "x"  # which it would be
    console().print("[red]x[/] [link=http://h/]y[/link] :smile:")
    assert capsys.readouterr().out == "[red]x[/] [link=http://h/]y[/link] :smile:\n"


def test_a_progress_bar_moves_the_cursor_and_its_words_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = Tty()
    monkeypatch.setattr(sys, "stderr", NeutralStream(terminal))
    monkeypatch.setenv("TERM", "xterm-256color")
    with Progress(console=console(stderr=True), auto_refresh=False) as progress:
        progress.add_task("a \x1b]0;q00001q\x07\x9b2J\u202e", total=2, completed=1)
        progress.refresh()
    printed = terminal.getvalue()
    assert "␛]0;q00001q" in printed
    assert "\x1b[?25l" in controls(printed)  # the bar's own
    assert not {c for c in controls(printed) if named(c) or c == "\x9b2J"}


# ---------------------------------------------------------------- completion


def test_completion_offers_no_name_that_would_act(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANTCHAT_CONFIG", str(tmp_path))
    folder = tmp_path / "profiles"
    folder.mkdir()
    for name in ("mine", "a\x1b[2J", "b\x9b2J", "c\u202e", "d\ne", "f\x07"):
        (folder / f"{name}.toml").touch()
    done = subprocess.run(
        [sys.executable, "-c", "from quantchat.cli import main; main()"],
        env={
            "PYTHONPATH": str(Path(quantchat.__file__).parents[1]),
            "QUANTCHAT_CONFIG": str(tmp_path),
            "_QUANTCHAT_COMPLETE": "bash_complete",
            "COMP_WORDS": "quantchat ",
            "COMP_CWORD": "1",
        },
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    offered = {line.partition(",")[2] for line in done.stdout.splitlines()}
    assert {"mine", "demo", *root.list_commands(None)} <= offered  # type: ignore[arg-type]
    assert controls(done.stdout) <= {"\n"}
    assert neutralise(done.stdout) == done.stdout
    assert not offered & {"a␛[2J", "b⟨9B⟩2J", "c⟨202E⟩", "d", "f␇"}
