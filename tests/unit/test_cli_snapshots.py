"""`quantchat snapshots`, as it is called from a shell."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fakes.saved import snapshot
from quantchat.cli import main
from quantchat.snapshot import store

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QUANTCHAT_SNAPSHOTS", str(tmp_path / "default"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "default"


def test_no_snapshots_yet(folder: Path, capsys: Capture) -> None:
    assert main(["snapshots"]) == 0
    assert "no snapshots in" in capsys.readouterr().out
    assert not folder.exists()


@pytest.mark.parametrize("command", [["snapshots"], ["snapshots", "list"]])
def test_listing(folder: Path, capsys: Capture, command: list[str]) -> None:
    file = store.save(snapshot(), folder)
    (folder / "broken.json").write_text("{")
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert file.name in shown
    assert "2026-11-03 14:25 +0100" in shown
    assert "GPTQ | NF4" in shown
    assert "broken: is cut short" in shown


def test_another_folder_before_or_after_the_word(
    folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    other = tmp_path / "other"
    file = store.save(snapshot(), other)
    for command in (
        ["snapshots", "--snapshots", str(other)],
        ["--snapshots", str(other), "snapshots"],
        ["snapshots", "--snapshots", str(other), "show", file.stem],
    ):
        assert main(command) == 0
        assert "Demo: GPTQ / NF4" in capsys.readouterr().out


def test_showing_by_name_or_path(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = store.save(snapshot(), folder)
    names = [file.name, file.stem, str(file), os.path.relpath(file)]
    for name in names:
        assert main(["snapshots", "show", name]) == 0
        shown = capsys.readouterr().out
        assert "What ran" in shown
        assert "Paris." in shown
    monkeypatch.chdir(folder)
    assert main(["snapshots", "show", file.name]) == 0


@pytest.mark.parametrize("name", ["nowhere", "a/b", "x\0y", "y" * 5000, "", "cut", "\x1b]0;t\x07"])
def test_a_bad_name_is_one_line(folder: Path, capsys: Capture, name: str) -> None:
    folder.mkdir()
    (folder / "cut.json").write_text('{"schema_version":')
    assert main(["snapshots", "show", name]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("quantchat: ")
    assert "\x1b" not in captured.err
