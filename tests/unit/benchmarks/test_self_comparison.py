"""A variant compared with itself shows no difference, on recorded times of real runs.

The times were recorded once (`benchmarks/self_comparison.py record`). The test repeats the
resampling and the statistics, not the measurement.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import quantchat

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "self_comparison.py"


@pytest.fixture(scope="module")
def checked() -> dict[str, dict[str, dict[str, int]]]:
    result = subprocess.run(
        [sys.executable, str(SCRIPT), "check"],
        env={"PYTHONPATH": str(Path(quantchat.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode in (0, 1), result.stderr
    body = json.loads(result.stdout)
    assert body["holds"] == (result.returncode == 0)
    differences: dict[str, dict[str, dict[str, int]]] = body["differences"]
    return differences


@pytest.mark.parametrize("way", ["sides swapped", "rounds split"])
@pytest.mark.parametrize("figure", ["ttft_ms", "tpot_ms", "end_to_end_ms"])
def test_no_difference_in_at_least_93_of_100(
    checked: dict[str, dict[str, dict[str, int]]], way: str, figure: str
) -> None:
    found = checked[way][figure]
    assert found["of"] == 100
    assert found["shown"] <= 7


def test_a_difference_that_is_there_is_found(
    checked: dict[str, dict[str, dict[str, int]]],
) -> None:
    for figure, found in checked["sides swapped"].items():
        assert found["if twice as slow"] >= 90, figure


def test_prompts_alone_would_not_do(checked: dict[str, dict[str, dict[str, int]]]) -> None:
    """The reason for resampling rounds: if this fails, they need not be."""
    assert all(found["by prompts alone"] > 7 for found in checked["rounds split"].values())


def test_the_page_tells_how_far_single_answers_scatter() -> None:
    runs = json.loads((SCRIPT.parent / "results" / "self_comparison.json").read_text())["runs"]
    ratios = [
        max(a / b, b / a)
        for run in runs
        for left, right in zip(run["one"]["tpot_ms"], run["two"]["tpot_ms"], strict=True)
        for a, b in zip(left, right, strict=True)
    ]
    half = f"{statistics.median(ratios):.2f}"
    told = f"in half of such pairs of answers the larger TPOT was over {half} times the smaller one"
    page = (SCRIPT.parents[1] / "docs" / "explanation" / "measuring.md").read_text(encoding="utf-8")
    assert told in " ".join(page.split())


def test_the_page_tells_what_was_found(checked: dict[str, dict[str, dict[str, int]]]) -> None:
    page = (SCRIPT.parents[1] / "docs" / "explanation" / "measuring.md").read_text(encoding="utf-8")
    swapped, *others = (
        [found[kind] for found in checked[way].values()]
        for way, kind in (
            ("sides swapped", "shown"),
            ("rounds split", "shown"),
            ("rounds split", "by prompts alone"),
        )
    )
    assert f"| {swapped[0]} of 100 show a difference | {swapped[1]} | {swapped[2]} |" in page
    for row in others:
        assert f"| {' | '.join(map(str, row))} |" in page
    shown = [found["shown"] for found in checked["in their order"].values()]
    expected = f"{min(shown)} or {max(shown)} of 22 comparisons"
    comparing = (SCRIPT.parents[1] / "docs" / "how-to" / "comparing.md").read_text(encoding="utf-8")
    assert all(expected in " ".join(text.split()) for text in (page, comparing))
