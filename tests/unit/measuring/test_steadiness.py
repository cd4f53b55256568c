"""Unsteady figures and outlying answers are reported; a quiet machine gives no warning."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from quantchat.measuring.rounds import MeasuredTurn
from quantchat.measuring.steadiness import FIGURES, warnings
from quantchat.session.conversation import Answer, AnswerState, Turn
from quantchat.snapshot import figures
from quantchat.snapshot.figures import AnswerFigure
from quantchat.system.energy import Energy

PROMPTS, ROUNDS, TOKENS = 5, 5, 60
Times = Callable[[str, int, int], tuple[float, float]]
"""TTFT and TPOT, in ms, of a side, a task counted from 0 and a round counted from 1."""

LEVEL = {"A": (120.0, 20.0), "B": (90.0, 14.0)}


def answer(label: str, ttft: float, tpot: float, tokens: int = TOKENS) -> Answer:
    first = 1_000 + round(ttft * 1e6)
    return Answer(
        label,
        "in-turn",
        AnswerState.DONE,
        received_ns=1_000,
        ids=list(range(tokens)),
        times_ns=[first + round(n * tpot * 1e6) for n in range(tokens)],
    )


def measured(times: Times, rounds: int = ROUNDS, prompts: int = PROMPTS) -> list[MeasuredTurn]:
    return [
        MeasuredTurn(
            task,
            number,
            Turn(
                number,
                "p",
                {label: answer(label, *times(label, task, number)) for label in LEVEL},
            ),
        )
        for number in range(1, rounds + 1)
        for task in range(prompts)
    ]


def quiet(seed: int, ttft_noise: float = 0.03, tpot_noise: float = 0.015) -> Times:
    """A quiet machine: each prompt has a level of its own, and noise of so much around it."""
    numbers = random.Random(seed)

    def times(label: str, task: int, number: int) -> tuple[float, float]:
        ttft, tpot = LEVEL[label]
        return (
            ttft * (1 + 0.4 * task) * numbers.lognormvariate(0, ttft_noise),
            tpot * (1 + 0.01 * task) * numbers.lognormvariate(0, tpot_noise),
        )

    return times


def changed(times: Times, **change: Callable[[int, int], tuple[float, float]]) -> Times:
    """`times`, each multiplied by what `change` says of a side's task and round."""

    def of(label: str, task: int, number: int) -> tuple[float, float]:
        ttft, tpot = times(label, task, number)
        by = change[label](task, number) if label in change else (1.0, 1.0)
        return ttft * by[0], tpot * by[1]

    return of


@pytest.mark.simulation
@pytest.mark.parametrize("rounds", [2, 3, 5, 10])
def test_a_quiet_machine_is_flagged_in_less_than_one_of_a_hundred(rounds: int) -> None:
    flagged = [seed for seed in range(200) if warnings(measured(quiet(seed), rounds))]
    assert len(flagged) <= 1, flagged


def test_a_stop_in_a_prefill_is_told() -> None:
    def stopped(task: int, number: int) -> tuple[float, float]:
        return (30.0, 1.0) if (task, number) == (2, 3) else (1.0, 1.0)

    (told,) = warnings(measured(changed(quiet(1), A=stopped)))
    assert told.startswith("A: TTFT far from the prompt's median in prompt 3 round 3 (")


def test_a_stop_while_decoding_is_told() -> None:
    def stopped(task: int, number: int) -> tuple[float, float]:
        return (1.0, 3.5) if (task, number) == (0, 5) else (1.0, 1.0)

    (told,) = warnings(measured(changed(quiet(2), B=stopped)))
    assert told.startswith("B: decode throughput far from the prompt's median in prompt 1 round 5")


@pytest.mark.parametrize("rounds", [2, 5])
def test_a_ttft_that_varies_by_twenty_times_is_told(rounds: int) -> None:
    numbers = random.Random(3)

    def varies(task: int, number: int) -> tuple[float, float]:
        return 20.0 ** numbers.random(), 1.0

    told = warnings(measured(changed(quiet(3), A=varies), rounds))
    assert any(line.startswith("A") and "TTFT" in line for line in told), told
    assert not any(line.startswith("B") for line in told)


@pytest.mark.parametrize("seed", range(20))
def test_other_programs_on_every_core_are_told(seed: int) -> None:
    """Each answer takes from one time to twice as long, as if it shared its cores now and then."""
    numbers = random.Random(seed)

    def shared(task: int, number: int) -> tuple[float, float]:
        return 1 + numbers.random(), 1 + numbers.random()

    told = warnings(measured(changed(quiet(seed), A=shared, B=shared)))
    assert {line[0] for line in told} == {"A", "B"}
    assert any("decode throughput varied" in line for line in told)
    assert len(told) <= 8, "a restless machine must not hide other warnings"


def test_answers_of_other_length_take_another_time_and_that_is_no_doubt() -> None:
    found = measured(lambda label, task, number: LEVEL[label])
    for one in found:
        ttft, tpot = LEVEL["A"]
        one.turn.answers["A"] = answer("A", ttft, tpot, tokens=20 + 10 * one.round)
    assert warnings(found) == []


def test_energy_that_varies_is_told() -> None:
    found = measured(lambda label, task, number: LEVEL[label])
    for one in found:
        one.turn.answers["A"].energy = Energy(300.0 if one.round % 2 else 500.0, 2.0)
    (told,) = warnings(found)
    assert told.startswith("A, prompt 1, 2, 3, 4, 5: energy varied by")


def test_each_figure_with_an_interval_is_judged() -> None:
    sampled = {one.title for one in figures.FIGURES if isinstance(one, AnswerFigure)}
    # TPOT is the inverse of the throughput, and prefill the most of TTFT. The slowest gaps of an
    # answer vary on any machine, and its length, thoughts and accepted drafts are the model's.
    others = {"TPOT", "prefill throughput", "ITL p95", "ITL p99", "answer length", "TTFA"}
    others |= {"draft acceptance", "mean acceptance length"}
    assert sampled - others == {one.title for one in FIGURES}
