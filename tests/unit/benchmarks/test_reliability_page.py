"""The page on reliability matches the saved results, and each test that it names exists."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from fakes.hostile_html import ATTACKS
from fakes.hostile_text import COUNT, SAMPLE

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "explanation" / "reliability.md").read_text(encoding="utf-8")


def kept(name: str) -> dict[str, Any]:
    """The kept result `benchmarks/results/<name>.json`."""
    text = (ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8")
    result: dict[str, Any] = json.loads(text)
    return result


@pytest.mark.parametrize("way", kept("kills")["summary"]["ended"])
def test_a_row_for_each_way_of_ending(way: str) -> None:
    runs = [run for run in kept("kills")["runs"] if run["way"] == way]
    left = sum(run["left"] for run in runs)
    broken = sum(len(run["broken"]) for run in runs)
    row = f"| {way} | {len(runs)} | {left} processes, {broken} files | `benchmarks/kills.py` |"
    assert row in PAGE


def test_how_much_the_kills_met() -> None:
    summary = kept("kills")["summary"]
    said = " ".join(PAGE.split())
    assert (
        f"In these {sum(summary['ended'].values())} runs {summary['processes_that_ran']} processes"
        f" were started and {summary['snapshots_written']} snapshots written. Where no share hangs,"
        f" the slowest end took {summary['slowest_end_s']} s. Where the snapshots' share hangs, the"
        f" slowest end took {summary['slowest_end_on_a_hung_share_s']} s:"
    ) in said
    assert not any(summary[what] for what in ("results_lost", "temporary_files_left"))


def test_how_many_payloads_were_tried() -> None:
    assert f"| {COUNT:,} payloads" in PAGE
    assert f"and {len(SAMPLE):,} payloads |" in PAGE
    assert f"| each of {len(ATTACKS)} attacks, and {len(SAMPLE):,} payloads |" in PAGE
    assert f"| {settings.get_profile('quantchat').max_examples} generated ones each |" in PAGE


def test_each_proof_named_is_there() -> None:
    named = re.findall(r"`((?:tests|benchmarks)/[\w/.]+\.py)`", PAGE)
    assert named
    assert not [path for path in named if not (ROOT / path).is_file()]
