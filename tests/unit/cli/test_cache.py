"""`quantchat cache`: its list, and that it removes a checkpoint completely or not at all."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from fakes.printed_document import printed
from quantchat.checkpoints.cache import BuildFolders, CheckpointCache, Entry, State
from quantchat.cli import main
from quantchat.cli.cache import cache_table

Capture = pytest.CaptureFixture[str]
DAY_S = 24 * 3600


@pytest.fixture
def folder(own_folders: None, tmp_path: Path) -> Path:
    """Three checkpoints: of today, of ten days ago, and one that lost a file."""
    folder = tmp_path / "cache" / "checkpoints"
    cache = CheckpointCache(folder)

    async def build(site: BuildFolders) -> dict[str, Any]:
        (site.output / "model.safetensors").write_bytes(b"w" * 5000)
        return {}

    async def make(name: str) -> Path:
        return await cache.make(name, build, inputs={}, versions={}, on_wait=lambda: None)

    for name, days in (("today-1", 0), ("older-2", 10), ("broken-3", 20)):
        made = asyncio.run(make(name))
        used_s = time.time() - days * DAY_S
        os.utime(made / "made.json", (used_s, used_s))
    (folder / "broken-3" / "model.safetensors").unlink()
    return folder


def test_nothing_made_yet(own_folders: None, tmp_path: Path, capsys: Capture) -> None:
    assert main(["cache"]) == 0
    assert "no checkpoints in" in capsys.readouterr().out
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("command", [["cache"], ["cache", "list"]])
def test_listing(folder: Path, capsys: Capture, command: list[str]) -> None:
    assert main(command) == 0
    shown = capsys.readouterr().out
    words = shown.split()
    order = [word for word in words if word in ("today-1", "older-2", "broken-3")]
    assert order == ["today-1", "older-2", "broken-3"]
    assert "damaged: built again when needed" in shown
    assert "together" in shown


@pytest.mark.parametrize("width", [40, 80, 100, 120])
def test_a_name_is_not_cut_where_there_is_room(width: int) -> None:
    name = "smollm2-135m-instruct-chats-held-out-74c6a55e963f"  # the longest of the demo's
    entries = [Entry(name, 12_000_000, 0, state) for state in State]
    shown = printed(cache_table(entries), width)
    assert max(map(len, shown.splitlines())) <= width
    assert shown.count(f" {name} ") == (0 if width == 40 else len(entries))
    assert shown.count("11.4 MiB  19") == len(entries)
    for note in ("damaged: built again when needed", "unfinished: continued when needed"):
        assert shown.count(f"   {note}") == (0 if width == 40 else 1)
    if width == 40:  # nothing of it is lost
        assert "".join(line[:13].strip() for line in shown.splitlines()).count(name) == len(State)


def test_listing_as_json(folder: Path, capsys: Capture) -> None:
    assert main(["cache", "list", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["folder"] == str(folder)
    assert [(one["name"], one["state"]) for one in told["entries"]] == [
        ("today-1", "whole"),
        ("older-2", "whole"),
        ("broken-3", "damaged"),
    ]
    assert told["entries"][0]["bytes"] > 5000


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        (["today-1"], {"older-2", "broken-3"}),
        (["older-2", "broken-3"], {"today-1"}),
        (["--unused-for", "5"], {"today-1"}),
        (["--unused-for", "15"], {"today-1", "older-2"}),
        (["--unused-for", "5", "today-1", "broken-3"], {"today-1", "older-2"}),
        (["--unused-for", "50"], {"today-1", "older-2", "broken-3"}),
    ],
)
def test_removing(folder: Path, capsys: Capture, arguments: list[str], left: set[str]) -> None:
    assert main(["cache", "remove", *arguments]) == 0
    assert {f.name for f in folder.iterdir() if f.name[0] != "."} == left
    assert not list((folder / ".parts").iterdir())
    said = capsys.readouterr().out
    assert said.count("removed ") == 3 - len(left)
    assert left != {"today-1", "older-2", "broken-3"} or said == "nothing to remove\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "no checkpoint is given"),
        (["../elsewhere"], "../elsewhere: no such checkpoint"),
        ([".parts"], ".parts: no such checkpoint"),
        (["today-1", "gone"], "gone: no such checkpoint"),
        (["--unused-for", "soon"], "--unused-for"),
    ],
)
def test_what_cannot_be_removed(
    folder: Path, capsys: Capture, arguments: list[str], complaint: str
) -> None:
    assert main(["cache", "remove", *arguments]) == 2
    said = capsys.readouterr().err
    assert complaint in said
    assert said.count("\n") == 1
    assert len([f for f in folder.iterdir() if f.name[0] != "."]) == 3


def test_what_another_process_makes_stays(folder: Path, capsys: Capture) -> None:
    with FileLock(folder / ".locks" / "today-1.lock"):
        assert main(["cache", "remove", "today-1"]) == 2
    assert "today-1: another quantchat process is making this checkpoint" in capsys.readouterr().err
    assert (folder / "today-1" / "model.safetensors").exists()


def test_a_use_is_remembered(folder: Path) -> None:
    cache = CheckpointCache(folder)
    cache.note_use("older-2")
    assert [entry.name for entry in cache.entries()][:1] == ["older-2"]
    assert cache.find("older-2")
    cache.note_use("gone")  # nothing happens


def test_what_was_stopped_is_kept_listed_and_removed(folder: Path, capsys: Capture) -> None:
    cache = CheckpointCache(folder)
    found: list[list[str]] = []

    async def build(site: BuildFolders) -> dict[str, Any]:
        found.append([f.name for f in site.unfinished.iterdir()])
        (site.output / "model.safetensors").write_bytes(b"w" * 5000)
        (site.unfinished / "layer-1").write_bytes(b"half" * 2000)
        if len(found) == 1:
            raise RuntimeError("stopped")
        return {}

    async def make() -> Path:
        return await cache.make("new-4", build, inputs={}, versions={}, on_wait=lambda: None)

    with pytest.raises(RuntimeError):
        asyncio.run(make())
    assert main(["cache"]) == 0
    assert "unfinished: continued when needed" in capsys.readouterr().out
    assert cache.entries()[0].bytes == 8000
    assert cache.find("new-4") is None

    asyncio.run(make())  # goes on from what is there, and clears it away when it is whole
    assert found == [[], ["layer-1"]]
    assert cache.entries()[0].bytes < 8000
    assert not list((folder / ".unfinished").iterdir())

    found.clear()
    (folder / "new-4" / "made.json").unlink()
    with pytest.raises(RuntimeError):
        asyncio.run(make())
    assert main(["cache", "remove", "new-4"]) == 0
    assert "new-4" not in [entry.name for entry in cache.entries()]
    assert not list((folder / ".unfinished").iterdir())


def test_verifying(folder: Path, capsys: Capture) -> None:
    assert main(["cache", "verify", "today-1", "older-2"]) == 0
    assert capsys.readouterr().out.count(": unchanged") == 2
    (folder / "today-1" / "model.safetensors").write_bytes(b"w" * 4999 + b"v")
    assert main(["cache", "verify"]) == 1
    said = {line.partition(":")[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "unchanged" in said["older-2"]
    assert "model.safetensors differs" in said["today-1"] and "cache remove" in said["today-1"]
    assert "a file is missing" in said["broken-3"]
    assert main(["cache", "verify", "../x"]) == 1
