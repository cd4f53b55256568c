"""Copying an answer with OSC 52, wrapped for tmux and GNU screen, and the message about it."""

from __future__ import annotations

import base64
import re
import stat
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.app import App

from fakes.screen_reader import see
from fakes.scripted_app import Setup
from quantchat.app import clipboard
from quantchat.text import without_controls

ANSWER = "The capital of France is **Paris**."


def osc52(text: str) -> str:
    return f"\x1b]52;c;{base64.b64encode(text.encode()).decode()}\x07"


@given(st.text())
def test_gnu_screen_is_given_the_sequence_whole_in_pieces_it_has_room_for(text: str) -> None:
    sequence = osc52(text.encode("utf-8", "replace").decode())
    wrapped = clipboard.for_screen(sequence)
    pieces = re.findall("\x1bP(.*?)\x1b\\\\", wrapped, re.DOTALL)
    assert "".join(pieces) == sequence
    assert all(len(piece) + 4 <= 768 for piece in pieces)


@given(st.text())
def test_tmux_undoes_the_wrapping(text: str) -> None:
    sequence = osc52(text.encode("utf-8", "replace").decode())
    wrapped = clipboard.for_tmux(sequence)
    assert wrapped.startswith("\x1bPtmux;") and wrapped.endswith("\x1b\\")
    assert wrapped[len("\x1bPtmux;") : -2].replace("\x1b\x1b", "\x1b") == sequence


def fake_tmux(folder: Path, status: int) -> Path:
    """A tmux that writes down what it is given to load."""
    folder.mkdir()
    program = folder / "tmux"
    program.write_text(
        f'#!/bin/sh\necho "$@" > {folder}/arguments\ncat > {folder}/buffer\nexit {status}\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return folder


def test_within_tmux_its_own_buffer_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fake_tmux(tmp_path / "bin", 0)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("TMUX", "/tmp/tmux,1,0")
    written: list[str] = []
    copied = clipboard.copy(ANSWER, written.append)
    assert copied.sure and "tmux's paste buffer" in copied.how
    assert (folder / "buffer").read_text() == ANSWER
    assert (folder / "arguments").read_text().split() == ["load-buffer", "-w", "-"]
    assert written == []


def test_where_tmux_refuses_the_sequence_is_passed_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{fake_tmux(tmp_path / 'bin', 1)}:/usr/bin:/bin")
    monkeypatch.setenv("TMUX", "/tmp/tmux,1,0")
    written: list[str] = []
    copied = clipboard.copy(ANSWER, written.append)
    assert not copied.sure and "allow-passthrough" in copied.how
    assert written == [clipboard.for_tmux(osc52(ANSWER))]


def test_within_gnu_screen_and_without(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    assert "OSC 52" in clipboard.copy(ANSWER, written.append).how
    monkeypatch.setenv("STY", "1.pts")
    assert "GNU screen" in clipboard.copy(ANSWER, written.append).how
    assert written == [osc52(ANSWER), clipboard.for_screen(osc52(ANSWER))]


@pytest.mark.parametrize("multiplexer", ["", "TMUX", "STY"])
@given(said=st.text(st.characters(), max_size=60))
def test_no_copy_carries_a_control(said: str, multiplexer: str) -> None:
    sent: list[str] = []

    def load(text: str) -> bool:
        sent.append(text)
        return True

    with pytest.MonkeyPatch.context() as patched:
        for name in ("TMUX", "STY"):
            patched.setenv(name, "1" if name == multiplexer else "")
        patched.setattr(clipboard, "_load_into_tmux", load)
        copied = clipboard.copy(said, sent.append)
    (text,) = sent
    if multiplexer != "TMUX":
        payload = "".join(
            re.findall("[A-Za-z0-9+/=]+", text.partition("c;")[2].replace("\x1bP", ""))
        )
        text = base64.b64decode(payload).decode()
    assert text == without_controls(said)
    assert not [c for c in text if unicodedata.category(c) == "Cc" and c not in "\n\t"]
    assert ("left out" in copied.how) == (text != said)


def test_a_long_text_is_said_to_be_at_risk() -> None:
    assert "some terminals cut it" in clipboard.copy("x" * 100_000, lambda text: None).how


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What goes to the terminal beside the frames."""
    sequences: list[str] = []

    def to_terminal(app: App[None]) -> object:
        return sequences.append

    monkeypatch.setattr("quantchat.app.screens.comparison.write_to_terminal", to_terminal)
    monkeypatch.setattr("quantchat.app.app.write_to_terminal", to_terminal)
    return sequences


@pytest.mark.parametrize("key", ["f5", "f6"])
async def test_a_key_for_each_side(setup: Setup, written: list[str], key: str) -> None:
    evil = "\x1b[201~\n\ttouch it\x9b\r\n\u202e"
    setup.left.answer = lambda request: "left" + evil
    setup.right.answer = lambda request: "right" + evil
    async with setup.running((200, 50)) as run:  # where the notification is one line
        await run.ready()
        await run.pilot.press(key)
        await see(run.pilot, "There is no answer to copy yet")
        await run.answered()
        await run.pilot.press(key)
        await see(run.pilot, "sent to the clipboard with OSC 52")
        await see(run.pilot, "F7 saves it to a file")
        await see(run.pilot, "4 control characters left out")
        answers = run.comparison.conversation.turns[0].answers.values()
        assert all(answer.text.endswith(evil) for answer in answers)  # as it is saved
    side = "left" if key == "f5" else "right"
    assert written == [osc52(side + "[201~\n\ttouch it\n")]


async def test_what_is_selected_is_copied_the_same_way(
    setup: Setup, written: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STY", "1.pts")
    async with setup.running() as run:
        await run.ready()
        run.screen.prompt.set_text("some words")
        run.screen.prompt.select_all()
        await run.pilot.press("ctrl+c")
    assert written == [clipboard.for_screen(osc52("some words"))]


@pytest.mark.parametrize("key", ["ctrl+c", "ctrl+x"])
async def test_where_nothing_is_written_no_clipboard_is_cleared(
    setup: Setup, written: list[str], key: str
) -> None:
    async with setup.running() as run:
        await run.ready()
        await run.pilot.press(key)
        await run.pilot.pause()
    assert written == []
