"""A recorded session is a valid asciicast v2."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    path = ROOT / "benchmarks" / "recording.py"
    spec = importlib.util.spec_from_file_location("recording", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "recording", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "PAUSE_S", 0.0)
    return module


def test_it_is_an_asciicast_of_what_was_seen(recording: ModuleType) -> None:
    program = 'stty -echo; printf "who? é"; read name; printf "hello %s" "$name"'
    steps = [recording.Step("who?", 1, "world\n")]
    header, *events = map(json.loads, recording.record(["sh", "-c", program], steps, 80, 24))
    assert header["version"] == 2
    assert (header["width"], header["height"]) == (80, 24)
    assert all(type(header[key]) is int for key in ("width", "height", "timestamp"))
    assert all(type(value) is str for value in header["env"].values())
    times = [at for at, _, _ in events]
    assert times == sorted(times) and all(type(at) is float and at >= 0 for at in times)
    assert {kind for _, kind, _ in events} == {"o"}
    assert "".join(text for _, _, text in events) == "who? éhello world"


def test_a_step_that_is_never_reached_ends_it(
    recording: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "LIMIT_S", 0.2)
    with pytest.raises(RuntimeError, match="never shown: hello"):
        recording.record(["cat"], [recording.Step("hello", 1, "")], 80, 24)
