"""Whole or not at all, private, and never in another's place."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantchat.files import _BUFFER, add_to_hash, sha256, write_new, write_whole


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


def test_without_hard_links_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(self: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")  # as FAT and some shares have it

    monkeypatch.setattr(Path, "hardlink_to", none)
    names = [write_new(tmp_path / "a.json", b"x").name for _ in range(2)]
    assert names == ["a.json", "a-2.json"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a-2.json", "a.json"]


KILLED = """
import os, signal, sys
from pathlib import Path
from quantchat.files import write_new

os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
write_new(Path(sys.argv[1]), b"x" * 100_000)
"""


def test_killed_in_the_middle_no_name_is_seen(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path / "a.json")]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert not list(tmp_path.glob("[!.]*"))


@given(st.binary(max_size=3 * _BUFFER), st.one_of(st.none(), st.integers(1, 4 * _BUFFER)))
@settings(max_examples=30)
def test_a_hash_is_of_all_that_was_read(data: bytes, most: int | None) -> None:
    digest = hashlib.sha256()
    stream = io.BytesIO(data)
    lengths = list(iter(lambda: add_to_hash(stream, digest, most), 0))
    assert sum(lengths) == len(data)
    assert all(most is None or length < most + _BUFFER for length in lengths)
    assert digest.hexdigest() == hashlib.sha256(data).hexdigest()


def test_the_hash_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert sha256(file).startswith("ba7816bf") and sha256(file).endswith("f20015ad")
