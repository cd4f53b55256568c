"""Whole or not at all, private, and never in another's place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from quantchat.files import write_new, write_whole


def test_private_whole_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    assert write_whole(path, b"one") == path
    assert write_whole(path, b"two").read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_new_names_are_counted(tmp_path: Path) -> None:
    names = [write_new(tmp_path / "a.json", b"x").name for _ in range(3)]
    assert names == ["a.json", "a-2.json", "a-3.json"]
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in tmp_path.iterdir())


@pytest.mark.parametrize("write", [write_whole, write_new])
def test_a_full_disk_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: object
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path / "a.json", b"x")  # type: ignore[operator]
    assert not list(tmp_path.iterdir())
