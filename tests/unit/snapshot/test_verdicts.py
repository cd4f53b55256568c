"""The outcomes shown, shown otherwise and undecided, and how much more data would decide."""

from __future__ import annotations

import math
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.saved_snapshots import hostile_text
from quantchat.document import verdicts as shown
from quantchat.snapshot.expression import Gate, Name, Number
from quantchat.snapshot.verdicts import JudgedQuantity, Verdict, against_number, exit_status


def judged(
    low: float | None, high: float | None, threshold: float = 1.0, **more: Any
) -> JudgedQuantity:
    value = 1.0 if low is None or high is None else (low + high) / 2
    return JudgedQuantity("b ÷ a", value, low, high, threshold, more.pop("relation", "<"), **more)


def verdict(found: JudgedQuantity, option: Any = "--fail-if") -> Verdict:
    gate = Gate(Name("b", "tpot_ms"), found.relation, Number(found.threshold), option)
    return Verdict(gate, found)


@pytest.mark.parametrize(
    ("low", "high", "outcome", "fails_if", "fails_unless"),
    [
        (0.8, 0.9, "shown", "failed", "passed"),
        (1.1, 1.2, "shown otherwise", "passed", "failed"),
        (0.9, 1.1, "undecided", "undecided", "undecided"),
        (0.9, 1.0, "undecided", "undecided", "undecided"),
        (None, None, "undecided", "undecided", "undecided"),
    ],
)
def test_outcomes(
    low: float | None, high: float | None, outcome: str, fails_if: str, fails_unless: str
) -> None:
    found = judged(low, high)
    assert found.outcome == outcome
    assert verdict(found).status == fails_if
    assert verdict(found, "--fail-unless").status == fails_unless


def test_exit_statuses() -> None:
    passed, failed, undecided = (verdict(judged(*b)) for b in ((2, 3), (0, 0.5), (0.5, 2)))
    assert exit_status([]) == exit_status([passed]) == 0
    assert exit_status([passed, undecided]) == 2
    assert exit_status([undecided, failed, passed]) == 1


@given(
    st.floats(0.5, 2), st.floats(0.01, 0.5), st.floats(0.5, 2), st.integers(2, 100), st.booleans()
)
def test_what_is_needed_makes_an_interval_that_decides(
    value: float, half: float, threshold: float, units: int, is_ratio: bool
) -> None:
    """Intervals shrink with the root of the data; the needed one leaves room for the value."""
    factor = math.exp(half)
    ends = (value / factor, value * factor) if is_ratio else (value - half, value + half)
    found = JudgedQuantity(
        "q", value, *ends, threshold, "<", units=units, unit="round", is_ratio=is_ratio
    )
    if found.needed is None:
        return
    assert found.outcome == "undecided"
    distance = abs(math.log(value / threshold)) if is_ratio else abs(value - threshold)
    assert half * math.sqrt(units / found.needed) < 0.71 * distance


def test_what_cannot_be_reached_is_not_promised() -> None:
    for found in (
        judged(0.9, 1.1, units=5, unit="round"),  # the value is the threshold
        judged(None, None, units=5, unit="round"),
        judged(0.9, 1.08),  # more would not help
        judged(0.8, 0.9, units=5, unit="round"),  # decided
    ):
        assert found.needed is None
    assert "too close" in shown.reason(verdict(judged(0.9, 1.1, units=5, unit="round")))


def test_a_number_on_the_left_turns_the_relation() -> None:
    what, _, threshold, relation = against_number(Gate(Number(3), "<", Name("b", "tpot_ms")))
    assert (what, threshold, relation) == ("b.tpot_ms", 3.0, ">")


def test_junit_counts_failures_and_errors() -> None:
    found = [verdict(judged(*b, units=4, unit="round")) for b in ((2, 3), (0, 0.5), (0.9, 1.2))]
    suites = ET.fromstring(shown.junit("title", found))
    assert suites.attrib == {"tests": "3", "failures": "1", "errors": "1"}
    cases = suites.findall("./testsuite/testcase")
    assert [[child.tag for child in case] for case in cases] == [
        ["system-out"], ["failure"], ["error"],
    ]  # fmt: skip
    message = cases[2][0].attrib["message"]
    assert "1 lies in the interval: undecided; about 74 rounds would decide (4 now)" in message
    assert message in shown.summary("title", found).replace("\\", "")


@given(hostile_text)
def test_any_title_gives_xml_and_one_row_a_gate(title: str) -> None:
    found = [verdict(judged(0.5, 2))]
    ET.fromstring(shown.junit(title, found))
    lines = shown.summary(title, found).splitlines()
    assert len([line for line in lines if line.startswith("|")]) == 3
