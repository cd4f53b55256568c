"""Recovered conversations: recognized by their file name, kept or discarded."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.saved_snapshots import snapshot
from quantchat.cli import main
from quantchat.errors import UserError
from quantchat.snapshot import recovered, store

Capture = pytest.CaptureFixture[str]


def test_it_waits_until_it_is_kept(tmp_path: Path) -> None:
    saved = store.save(snapshot(), tmp_path)
    first, second = (recovered.save(snapshot(), tmp_path) for _ in range(2))
    assert first.name.endswith(".recovered.json") and second.name.endswith(".recovered-2.json")
    assert set(recovered.recovered_snapshots(tmp_path)) == {first, second}
    assert not recovered.is_recovered(saved)
    assert all(store.load(path) == store.load(saved) for path in (first, second))

    kept = [recovered.keep(path) for path in (first, second)]
    # In no other file's place, and not lost.
    assert [path.name for path in kept] == [f"{saved.stem}-2.json", f"{saved.stem}-3.json"]
    assert recovered.recovered_snapshots(tmp_path) == []
    assert sorted(tmp_path.iterdir()) == sorted([saved, *kept])
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in kept)
    assert all(store.load(path) == store.load(saved) for path in kept)


def test_only_what_is_recovered_is_ever_discarded(tmp_path: Path) -> None:
    saved, kept = store.save(snapshot(), tmp_path), recovered.save(snapshot(), tmp_path)
    recovered.discard(kept)
    with pytest.raises(UserError, match="not a recovered snapshot"):
        recovered.discard(saved)
    with pytest.raises(UserError, match="saved already"):
        recovered.keep(saved)
    with pytest.raises(UserError, match="cannot be removed"):
        recovered.discard(kept)
    with pytest.raises(UserError, match="cannot be renamed"):
        recovered.keep(kept)
    assert list(tmp_path.iterdir()) == [saved]


def test_nothing_waits_where_nothing_is(tmp_path: Path) -> None:
    assert recovered.recovered_snapshots(tmp_path / "nowhere") == []


def test_from_a_shell(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTCHAT_SNAPSHOTS", str(tmp_path))
    store.save(snapshot(), tmp_path)
    assert main(["snapshots"]) == 0
    assert "recovered" not in capsys.readouterr().out
    first, second = (recovered.save(snapshot(), tmp_path) for _ in range(2))
    assert main(["snapshots"]) == 0
    shown = capsys.readouterr().out
    assert "  recovered" in shown and "snapshots keep NAME" in shown
    assert main(["snapshots", "keep", first.stem]) == 0
    assert "saved as" in capsys.readouterr().out
    assert main(["snapshots", "discard", second.name]) == 0
    assert "discarded" in capsys.readouterr().out
    assert len(list(tmp_path.iterdir())) == 2
    assert main(["snapshots", "discard", "nowhere"]) == 2
