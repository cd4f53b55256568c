"""`quantchat snapshots`, as it is called from a shell."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click
import pytest

from fakes.saved_snapshots import scored, snapshot
from fakes.timed_snapshots import measured
from quantchat.cli import main
from quantchat.snapshot import recovered, store
from quantchat.snapshot.votes import VotingRecord

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
    assert "  is cut short: the end of the JSON is missing (remove it, or move it" in shown


def test_the_list_says_what_each_is(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    voting = VotingRecord(seed=1, paced=True, votes=[])
    saved = {
        "chat": snapshot(),
        "measurement": measured(name="A name of forty letters, as files have it"),
        "votes": snapshot(voting=voting),
        "score": scored(),
    }
    files = {store.save(one, folder).name: kind for kind, one in saved.items()}
    newer = json.loads(store.dumps(snapshot())) | {"schema_version": 99}
    (folder / "20990101T000000Z-newer.json").write_text(json.dumps(newer))
    monkeypatch.setattr("quantchat.console.console.PIPE_WIDTH", 50)
    assert main(["snapshots"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, kind in files.items():  # each name whole, on a line of its own
        assert lines[lines.index(name) + 1].split()[3] == kind
    told = lines[lines.index("20990101T000000Z-newer.json") + 1 :]
    assert told[0].startswith("  written by a newer quantchat (schema 99")
    assert "update quantchat" in " ".join(" ".join(told[:3]).split())

    for words in (["--json"], ["list", "--json"]):
        assert main(["snapshots", *words]) == 0
        body = json.loads(capsys.readouterr().out)
        listed = {one["file"]: one for one in body["snapshots"]}
        assert {name: listed[name]["kind"] for name in files} == files
        assert listed["20990101T000000Z-newer.json"]["cure"] == "update quantchat"
    assert main(["snapshots", "--json", "show", "x"]) == 2


def test_a_beginning_that_no_other_has_is_enough(folder: Path, capsys: Capture) -> None:
    first = store.save(snapshot(created="2026-11-03T14:25:01+00:00"), folder)
    store.save(snapshot(created="2026-11-03T14:26:01+00:00"), folder)
    assert main(["snapshots", "show", "20261103T1425"]) == 0
    assert "Paris." in capsys.readouterr().out
    assert main(["snapshots", "show", "20261103T14"]) == 2
    refused = capsys.readouterr().err
    assert "2 snapshots begin with this" in refused
    assert first.name in refused
    assert main(["report", "20261103T1425", "-o", str(folder / "r.html")]) == 0


def test_what_is_discarded_by_its_beginning_is_the_one_that_begins_so(
    folder: Path, capsys: Capture
) -> None:
    file = recovered.save(snapshot(), folder)
    other = recovered.save(snapshot(name="another"), folder)
    assert main(["snapshots", "discard", file.name[:12]]) == 2
    assert "2 snapshots begin with this" in capsys.readouterr().err
    assert main(["snapshots", "discard", ""]) == 2
    assert main(["snapshots", "discard", file.name[:20]]) == 0
    assert (file.exists(), other.exists()) == (False, True)
    saved = store.save(snapshot(), folder)
    assert main(["snapshots", "discard", saved.name[:20]]) == 2
    assert "is not a recovered snapshot" in capsys.readouterr().err
    assert saved.exists()


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


def test_the_latest_is_named_so(folder: Path, capsys: Capture) -> None:
    assert main(["snapshots", "latest"]) == 2
    assert "latest: no such snapshot" in capsys.readouterr().err
    store.save(snapshot(created="2026-11-03T14:25:01+00:00"), folder)
    newest = store.save(snapshot(created="2026-11-03T14:26:01+00:00"), folder)
    assert main(["snapshots", "latest"]) == 0
    assert capsys.readouterr().out.strip() == str(newest)
    assert main(["snapshots", "show", "latest"]) == 0
    Path("latest").write_text("{")
    assert main(["snapshots", "latest"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "latest"


def test_snapshots_are_removed_when_that_is_confirmed(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = store.save(snapshot(created="2026-11-03T14:25:01+00:00"), folder)
    second = store.save(snapshot(created="2026-11-03T14:26:01+00:00"), folder)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    assert main(["snapshots", "remove", "latest"]) == 2
    assert "no terminal to confirm" in capsys.readouterr().err
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("click.confirm", _declined)
    assert main(["snapshots", "remove", "latest"]) == 130
    assert main(["snapshots", "remove", "--yes", "latest", "nothing-like-it"]) == 2
    assert first.exists() and second.exists()
    assert main(["snapshots", "remove", "--yes", "latest", second.name]) == 0
    assert first.exists()
    assert not second.exists()


def _declined(*_: object, **__: object) -> None:
    raise click.Abort
