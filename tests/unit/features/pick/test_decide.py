"""The decision of `pick`: limits, ties after Holm's correction, the frontier, and its text."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantchat.document import terminal
from quantchat.document.drawing import svg
from quantchat.features.pick.decide import Candidate, decide, judged_limits
from quantchat.features.pick.frontier import plots, scatter
from quantchat.features.pick.tables import blocks, explanation, headline
from quantchat.snapshot.pick import LimitsRecord, PickRecord, Preference
from quantchat.snapshot.quality_gates import UncertainValue

MIB = 2**20


def candidate(
    label: str,
    tps: float,
    kld: float | None = 0.02,
    memory: int | None = 500,
    *,
    noise: float = 0.01,
    **more: Any,
) -> Candidate:
    """Four prompts in three rounds, with normal noise of its own."""
    generator = random.Random(label)
    speeds = {
        (task, round_): tps * generator.lognormvariate(0, noise)
        for task in range(1, 5)
        for round_ in range(1, 4)
    }
    distance = None if kld is None else UncertainValue(kld, kld, 0.1 * kld)
    size = None if memory is None else memory * MIB
    return Candidate(label, memory=size, speeds=speeds, kld=distance, tokens=8192, **more)


def limits(prefer: Preference = "fastest", **more: Any) -> LimitsRecord:
    fields: dict[str, Any] = dict.fromkeys(("max_memory", "min_tps", "max_kld", "max_drop"))
    return LimitsRecord(**{**fields, "context": 4096, "prefer": prefer, **more})


def said(pick: PickRecord) -> str:
    return " ".join([headline(pick), *explanation(pick)])


def test_the_fastest_within_the_limits() -> None:
    given_ = [
        candidate("quick", 50, kld=0.3),  # too far from the original
        candidate("good", 40),
        candidate("slow", 20),
    ]
    found = decide(given_, limits(max_kld=0.05), "bf16")
    assert (found.recommended, found.runner_up) == ("good", "slow")
    assert found.candidates[0].misses_limit
    assert found.candidates[1].meets_limits
    assert [(one.other, one.difference_shown) for one in found.comparisons] == [("slow", True)]
    assert headline(found).startswith("Take good: decodes ")
    assert "Runner-up: slow" in said(found)


@pytest.mark.parametrize(
    ("prefer", "expected"), [("fastest", "fast"), ("smallest", "small"), ("closest", "close")]
)
def test_what_is_preferred(prefer: Preference, expected: str) -> None:
    given_ = [
        candidate("fast", 50, 0.03, 500),
        candidate("small", 20, 0.04, 300),
        candidate("close", 10, 0.001, 900),
    ]
    found = decide(given_, limits(prefer), "bf16")
    assert found.recommended == expected
    assert all(one.difference_shown for one in found.comparisons)
    assert all(one.frontier for one in found.candidates)


def test_what_cannot_be_told_apart_is_decided_by_the_next_figure() -> None:
    given_ = [
        candidate("a", 40.2, kld=0.04, noise=0.05),
        candidate("b", 40, kld=0.02, noise=0.05),
        candidate("c", 20),
    ]
    found = decide(given_, limits(), "bf16")
    assert found.best in ("a", "b")
    assert found.recommended == "b"
    assert [one.difference_shown for one in found.comparisons] == [False, True]
    if found.best == "a":
        assert "b is taken because it is closer to the original" in said(found)
    assert "No difference in" in said(found)
    assert "corrected for 2 comparisons" in said(found)


def test_a_certain_candidate_goes_before_a_faster_undecided_one() -> None:
    given_ = [candidate("faster", 50, kld=0.05), candidate("sure", 40, kld=0.01)]
    found = decide(given_, limits(max_kld=0.0505), "bf16")
    assert [one.limits[0].outcome for one in found.candidates] == ["undecided", "shown"]
    assert (found.recommended, found.runner_up) == ("sure", "faster")
    only = decide(given_[:1], limits(max_kld=0.0505), "bf16")
    assert only.recommended == "faster"
    assert "not shown yet that it meets all limits" in headline(only)
    assert "tokens would decide (8192 now)" in said(only)


@pytest.mark.parametrize(
    ("by_prompt", "by_round", "unit"),
    [(0.3, 0, "prompts"), (0, 0.3, "rounds"), (0, 0, "answers"), (0.3, 0.3, "prompts and rounds")],
)
def test_more_rounds_decide_a_speed_whatever_varies(
    by_prompt: float, by_round: float, unit: str
) -> None:
    generator = random.Random(7)
    prompts, rounds = ([generator.uniform(-1, 1) for _ in range(8)] for _ in range(2))
    speeds = {
        (task, round_): 40 * math.exp(by_prompt * a + by_round * b + generator.gauss(0, 0.02))
        for task, a in enumerate(prompts)
        for round_, b in enumerate(rounds)
    }
    found = candidate("a", 1)
    middle = replace(found, speeds=speeds).throughput
    assert middle is not None and middle.low is not None
    near = (middle.value + middle.low) / 2
    (limit,) = judged_limits(replace(found, speeds=speeds), limits(min_tps=near))
    assert limit.outcome == "undecided" and limit.more_rounds
    assert f"{unit} would decide" in limit.reason


def test_a_certain_candidate_without_a_speed_does_not_stand_in_the_way() -> None:
    """The reference meets a limit on the KLD before it is measured."""
    reference = Candidate("bf16", memory=900 * MIB, kld=UncertainValue(0.0, 0.0, 0.0))
    found = decide([reference, candidate("new", 40, kld=None)], limits(max_kld=0.05), "bf16")
    assert found.recommended == "new"


def test_no_variant_meets_the_limits() -> None:
    given_ = [candidate("a", 40), Candidate("b", dropped="needs too much")]
    found = decide(given_, limits(min_tps=80.0, max_memory=10 * 2**30), "bf16")
    assert (found.recommended, found.runner_up, found.comparisons) == ("", "", [])
    assert headline(found) == (
        "No variant meets the limits: at most 10.0 GiB at 4,096 tokens of context, at least 80.0"
        " tok/s."
    )


def test_without_a_measurement_nothing_is_recommended() -> None:
    found = decide([Candidate("a"), Candidate("b")], limits(min_tps=1.0), "")
    assert found.recommended == ""
    assert "nothing was measured" in headline(found)


def test_a_server_has_neither_memory_nor_distance() -> None:
    given_ = [candidate("server", 60, None, None), candidate("here", 40)]
    found = decide(given_, limits(max_kld=0.05), "bf16")
    assert [one.limits[0].outcome for one in found.candidates] == ["undecided", "shown"]
    assert found.recommended == "here"
    assert decide(given_, limits(), "bf16").recommended == "server"


def test_the_frontier_leaves_out_what_another_beats_in_everything() -> None:
    given_ = [
        candidate("good", 40, 0.01, 500),
        candidate("worse", 30, 0.02, 600),
        candidate("small", 30, 0.03, 100),
    ]
    found = decide(given_, limits(), "bf16")
    assert [one.frontier for one in found.candidates] == [True, False, True]
    drawn = scatter(found)
    assert "(B)" in drawn
    assert "(A)" not in drawn and "(C)" not in drawn
    (plot,) = plots(found)
    assert plot.name == "frontier"
    drawn = svg(plot)
    assert "good" in drawn and "0.01" in drawn
    assert "mathdefault" not in drawn  # numbers, and no markup that is shown as it is


def test_accuracy_may_drop_by_a_margin() -> None:
    near = candidate("near", 40, drop=UncertainValue(0.0, 0.0, 0.005), questions=500)
    far = candidate("far", 60, drop=UncertainValue(0.05, 0.05, 0.01), questions=500)
    found = decide([near, far], limits(max_drop=0.01), "bf16")
    assert [one.limits[0].outcome for one in found.candidates] == ["shown", "shown otherwise"]
    assert found.recommended == "near"


finite = st.floats(0.01, 1000)


@given(
    st.lists(st.tuples(finite, st.none() | finite, st.none() | st.integers(1, 999)), max_size=5),
    st.sampled_from(["fastest", "smallest", "closest"]),
    st.none() | finite,
    st.none() | finite,
)
def test_any_candidates_give_a_decision_that_can_be_shown(
    made: list[tuple[float, float | None, int | None]],
    prefer: Preference,
    min_tps: float | None,
    max_kld: float | None,
) -> None:
    given_ = [candidate(f"v{n}", *figures) for n, figures in enumerate(made)]
    found = decide(given_, limits(prefer, min_tps=min_tps, max_kld=max_kld), "bf16")
    assert PickRecord.model_validate(found.model_dump()) == found
    terminal.renderable(blocks(found))
    chosen = found.of(found.recommended)
    if chosen is not None:
        assert not chosen.misses_limit
        assert found.recommended != found.runner_up
        if any(one.meets_limits for one in found.candidates) and prefer == "fastest":
            assert chosen.meets_limits
