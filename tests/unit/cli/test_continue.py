"""`quantchat --continue`: which snapshots can be continued."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fakes.saved_snapshots import snapshot
from quantchat.cli import main
from quantchat.profile.model import Profile
from quantchat.snapshot import store

Capture = pytest.CaptureFixture[str]


PROFILE = Profile.model_validate(
    {
        "name": "p",
        "variants": [
            {"label": label, "engine": "bitsandbytes", "model": "m"} for label in ("GPTQ", "NF4")
        ],
    }
).model_dump(mode="json")


def test_a_snapshot_without_a_chat_is_refused(tmp_path: Path, capsys: Capture) -> None:
    file = store.save(snapshot(profile=PROFILE, turns=[]), tmp_path)
    assert main(["--continue", str(file)]) == 2
    assert "has no prompt" in capsys.readouterr().err


def test_an_unknown_name_is_said(tmp_path: Path, capsys: Capture) -> None:
    assert main(["--snapshots", str(tmp_path), "--continue", "nothing"]) == 2
    assert "nothing" in capsys.readouterr().err


def test_with_a_command_it_is_refused(capsys: Capture) -> None:
    assert main(["--continue", "latest", "doctor"]) == 2
    assert "--continue" in capsys.readouterr().err


def test_the_chat_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = snapshot(profile=PROFILE)
    store.save(saved, tmp_path)
    opened: list[dict[str, Any]] = []

    def run(profile: object, **more: Any) -> int:
        opened.append(more)
        return 0

    monkeypatch.setattr("quantchat.app.run", run)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert main(["--snapshots", str(tmp_path), "--continue", "latest"]) == 0
    (more,) = opened
    assert more["chat"] == saved and more["pair"] == (0, 1)
