"""A report is written completely, and never over a file that is not a report."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from quantchat import files
from quantchat.document import output
from quantchat.document.output import LIST, check_file, check_folder, write_file, write_folder
from quantchat.errors import UserError

OURS = b"ours"


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name != LIST}


def test_a_file_is_replaced_only_if_it_is_ours(tmp_path: Path) -> None:
    path = tmp_path / "r.html"
    check_file(path, OURS, force=False)
    write_file(path, b"this is ours")
    check_file(path, OURS, force=False)
    path.write_bytes(b"a letter")
    with pytest.raises(UserError, match="exists and is not a report"):
        check_file(path, OURS, force=False)
    check_file(path, OURS, force=True)
    write_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real.html", tmp_path / "link.html"
    real.write_bytes(b"ours")
    link.symlink_to(real)
    write_file(link, b"new")
    assert link.is_symlink()
    assert real.read_bytes() == b"new"


@pytest.mark.parametrize(
    ("name", "said"),
    [("", "is a folder"), ("pipe", "is not a regular file"), ("no/r.html", "no such folder"),
     ("x\0y", "cannot be written"), ("loop", "cannot be written")],
)  # fmt: skip
def test_a_bad_file_is_told(tmp_path: Path, name: str, said: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(UserError, match=said):
        check_file(tmp_path / name, OURS, force=True)


@pytest.mark.parametrize(
    ("umask", "file", "folder"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700)]
)
def test_the_umask_decides_who_can_read(tmp_path: Path, umask: int, file: int, folder: int) -> None:
    page, out = tmp_path / "r.html", tmp_path / "out"
    before = os.umask(umask)
    try:
        write_file(page, b"new")
        check_folder(out, force=False)
        write_folder(out, {"a.png": b"a"})
    finally:
        os.umask(before)
    assert contents(out) == {"a.png": b"a"}
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (page, out / "a.png", out)]
    assert modes == [file, file, folder]


def test_an_older_report_goes_away(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    write_folder(folder, {"a.png": b"a", "b.png": b"b"})
    check_folder(folder, force=False)
    write_folder(folder, {"b.png": b"B", "c.png": b"c"})
    assert contents(folder) == {"b.png": b"B", "c.png": b"c"}
    check_folder(folder, force=False)


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    check_folder(tmp_path, force=False)
    write_folder(tmp_path, {"a.png": b"a"})
    assert contents(tmp_path) == {"a.png": b"a"}


def test_what_others_laid_there_stays(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a.png": b"a"})
    (tmp_path / "notes.txt").write_bytes(b"mine")
    with pytest.raises(UserError, match="has files that do not belong to a report"):
        check_folder(tmp_path, force=False)
    check_folder(tmp_path, force=True)
    write_folder(tmp_path, {"b.png": b"b"})
    assert contents(tmp_path) == {"b.png": b"b", "notes.txt": b"mine"}


def test_a_list_that_lies_takes_nothing_with_it(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"mine")
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / LIST).write_text("../precious\n/etc/passwd\n..\n")
    write_folder(folder, {"a.png": b"a"})
    assert (tmp_path / "precious").read_bytes() == b"mine"


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"")
    for name, said in (("f", "is not a folder"), ("no/f", "no such folder"), ("\0", "cannot be")):
        with pytest.raises(UserError, match=said):
            check_folder(tmp_path / name, force=True)


def test_nothing_is_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "out"
    write_folder(folder, {"a.png": b"old", "b.png": b"old"})
    real = files.write_whole

    def full(path: Path, data: bytes, *, private: bool = True) -> Path:
        if path.name == "b.png":
            raise OSError(28, "No space left on device")
        return real(path, data)

    monkeypatch.setattr(output, "write_whole", full)
    for target in (folder, tmp_path / "new"):
        with pytest.raises(UserError, match="cannot be written: No space left on device"):
            write_folder(target, {"a.png": b"new", "b.png": b"new"})
    assert contents(folder) == {"a.png": b"old", "b.png": b"old"}
    assert list(tmp_path.iterdir()) == [folder]
