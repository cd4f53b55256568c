"""The input thread ends quietly if the terminal is gone; any other end is an error."""

from __future__ import annotations

import os
import pty
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from textual.app import App

from quantchat.app.textual_workarounds import PacedDriver


def read_from(descriptor: int) -> list[Any]:
    """What the app is told of by a driver that reads keys from `descriptor`."""
    told: list[Any] = []
    app = SimpleNamespace(call_later=lambda *call: told.append(call), panic="panic")
    driver = PacedDriver(cast("App[None]", app))
    driver.fileno = descriptor
    driver._run_input_thread()
    return told


async def test_a_terminal_that_is_gone_is_no_mistake() -> None:
    near, far = pty.openpty()
    os.close(far)
    try:
        with pytest.raises(OSError, match="Input/output error"):
            os.read(near, 1)
        assert read_from(near) == []
    finally:
        os.close(near)


async def test_any_other_error_is_told(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        ((told, _),) = read_from(folder)  # a folder can be read from at any time, and never be
    finally:
        os.close(folder)
    assert told == "panic"
