"""Shared code of the decoding benchmarks: one failed measurement does not end the others."""

from __future__ import annotations

import asyncio
import importlib
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture(autouse=True)
def _found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_a_reason_in_a_task_can_be_caught_and_kept() -> None:
    driving: Any = importlib.import_module("driving")

    async def fails() -> None:
        raise driving.NotRun("out of memory")

    async def pair() -> str:
        try:
            await asyncio.gather(fails(), asyncio.sleep(0))
        except driving.NotRun as error:
            return str(error)
        return ""

    assert driving.run(pair()) == "out of memory"
    with pytest.raises(SystemExit, match="out of memory"):
        driving.run(fails())


def test_a_device_that_is_not_there_is_one_clear_line() -> None:
    bandwidth: Any = importlib.import_module("bandwidth")
    with pytest.raises(SystemExit) as ended:
        bandwidth.bandwidth(1, "nowhere")
    assert str(ended.value).startswith("nowhere: its memory's bandwidth cannot be measured: ")
    assert "\n" not in str(ended.value)
