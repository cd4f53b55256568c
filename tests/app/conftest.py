"""Fixtures and settings that all tests of the screen share."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantchat.app import terminal
from quantchat.session import live_variant

terminal.configure_textual()  # before anything imports Textual

from fakes.scripted_app import Setup  # noqa: E402


@pytest.fixture(autouse=True)
def no_multiplexer(monkeypatch: pytest.MonkeyPatch, own_folders: None) -> None:
    for name in ("TMUX", "STY", "SSH_CONNECTION", "SSH_TTY", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLORTERM", "truecolor")


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripted workers send no sign of life, and on a busy machine a test may take its time."""
    monkeypatch.setattr(live_variant, "SILENT_S", 500.0)
    monkeypatch.setattr(live_variant, "STUCK_S", 500.0)


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup.usual(tmp_path)
