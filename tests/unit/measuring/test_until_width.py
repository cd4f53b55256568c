"""A measurement ends when its interval is narrow enough."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from fakes.scripted_worker import Script, ScriptedProvider, starter
from quantchat.features.measure.tables import how
from quantchat.measuring.measure import measure
from quantchat.measuring.rounds import Plan, Task
from quantchat.measuring.until_width import half_width, narrow_enough
from quantchat.profile.model import Profile
from quantchat.session.comparison import Comparison
from quantchat.snapshot.schema import Snapshot
from quantchat.statistics.intervals import Pair, ratio_of


def measured(folder: Path, b: Script, **plan: Any) -> Snapshot:
    scripts = {"A": Script(token_ms=20.0), "B": b}
    variants = [{"label": label, "engine": "bitsandbytes", "model": "m"} for label in scripts]
    profile = Profile.model_validate({"name": "Scripted", "variants": variants})
    comparison = Comparison(
        profile, provider=ScriptedProvider(scripts), start=starter(scripts, folder)
    )
    tasks = (Task("one"), Task("two"))
    return asyncio.run(measure(comparison, Plan(tasks, rounds=12, warmup=0, **plan)))


class _Unsteady(Script):
    """Takes 10 to 60 ms a token, in steps that follow no rhythm of prompts and rounds."""

    answers = 0

    def __getattribute__(self, name: str) -> Any:
        if name == "answer":
            self.answers += 1
            self.token_ms = 10 + 50 * (self.answers**2 * 0.6180339887 % 1)
        return super().__getattribute__(name)


def test_a_steady_ratio_ends_after_five_rounds(tmp_path: Path) -> None:
    snapshot = measured(tmp_path, Script(token_ms=10.0), until_width=0.05)
    assert snapshot.measurement is not None
    assert snapshot.measurement.rounds == 5
    assert len(snapshot.turns) == 10
    assert how(snapshot).endswith("until the interval of the speed is ±5.00%")


def test_an_unsteady_one_uses_all_rounds_and_says_so(tmp_path: Path) -> None:
    snapshot = measured(tmp_path, _Unsteady(), until_width=0.01)
    assert snapshot.measurement is not None
    assert snapshot.measurement.rounds == 12
    assert how(snapshot).endswith("±1.00%, not reached")


def test_no_round_begins_after_the_time(tmp_path: Path) -> None:
    snapshot = measured(tmp_path, Script(), minutes=1e-9)
    assert snapshot.measurement is not None
    assert (snapshot.measurement.rounds, len(snapshot.turns)) == (1, 2)
    assert not snapshot.measurement.stopped


def test_both_of_two_rounds_must_be_narrow() -> None:
    assert narrow_enough(0.04, 0.05, 0.05)
    assert not narrow_enough(0.04, 0.06, 0.05)
    assert not narrow_enough(0.06, 0.04, 0.05)
    assert not narrow_enough(0.04, None, 0.05)
    assert not narrow_enough(None, 0.04, 0.05)


def test_the_width_is_that_of_the_interval_of_the_table() -> None:
    pairs = [
        Pair(task, round_, 1.0, 1.0 + 0.1 * (task * round_ % 3))
        for task in range(3)
        for round_ in range(3)
    ]
    ratio, half = ratio_of(pairs), half_width(pairs)
    assert ratio is not None and ratio.low is not None and ratio.high is not None
    assert half is not None
    assert ratio.high == pytest.approx(ratio.low * (1 + half) ** 2)
    assert half_width(pairs[:1]) is None
    assert half_width([]) is None
