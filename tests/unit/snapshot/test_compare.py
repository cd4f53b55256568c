"""Comparing runs: which columns are compared, what differed, and which runs are refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.saved_snapshots import MODEL_INFO, snapshot, variant
from fakes.timed_snapshots import measured
from quantchat.errors import UserError
from quantchat.snapshot.compare import RunsCompared, compare_runs
from quantchat.snapshot.compared_sides import Run, column_letter
from quantchat.snapshot.run_diff import NotComparable
from quantchat.snapshot.schema import Snapshot


def compared(*snapshots: Snapshot, force: bool = False) -> RunsCompared:
    runs = [Run(f"{n}.json", one) for n, one in enumerate(snapshots, 1)]
    return compare_runs(runs, force=force)


def pairs(result: RunsCompared) -> list[tuple[str, str, str]]:
    return [(pair.kind, pair.b.letter, pair.a.letter) for pair in result.pairs]


def test_one_run_is_right_against_left() -> None:
    result = compared(measured())
    assert pairs(result) == [("within a run", "b", "a")]
    figures = {one.name: one for one in result.pairs[0].figures}
    assert figures["tpot_ms"].ratio.value == pytest.approx(0.5)
    assert figures["weights_bytes"].ratio.clustered_by == ""


def test_each_variant_is_compared_with_the_first_run_that_has_it() -> None:
    result = compared(
        measured(labels=("GPTQ", "NF4")),
        measured(labels=("NF4", "bf16")),
        measured(labels=("GPTQ", "bf16")),
    )
    assert pairs(result) == [
        ("within a run", "b", "a"),
        ("within a run", "d", "c"),
        ("within a run", "f", "e"),
        ("between runs", "c", "b"),
        ("between runs", "e", "a"),
        ("between runs", "f", "d"),
    ]


def test_runs_are_paired_by_prompt_and_round() -> None:
    """The prompts are in another order, one is new, and there are more rounds."""
    old = measured(lambda task, round_: 10.0 * task, prompts=("x", "y"))
    new = measured(
        lambda task, round_: {1: 22.0, 2: 99.0, 3: 11.0}[task], prompts=("y", "z", "x"), rounds=4
    )
    result = compared(old, new)
    told = {one.what: one.values for one in result.differences}
    assert told["prompts"] == ("2", "2", "3", "3")
    (between,) = (p for p in result.pairs if (p.b.letter, p.a.letter) == ("c", "a"))
    tpot = next(one for one in between.figures if one.name == "tpot_ms")
    assert tpot.a == pytest.approx(200**0.5)  # the geometric mean of 10 and 20
    assert tpot.b == pytest.approx((22 * 11) ** 0.5)
    assert tpot.ratio.value == pytest.approx(1.1)
    assert (tpot.ratio.pairs, tpot.ratio.prompts) == (4, 2)


def test_prompts_that_are_others_are_told() -> None:
    result = compared(measured(prompts=("x", "y")), measured(prompts=("y", "z")))
    found = {one.what: one.values for one in result.differences}
    assert found == {"prompts shared with run 1": ("2", "2", "1", "1")}


def test_the_same_prompt_twice_in_a_plan_stays_two_tasks() -> None:
    same = measured(lambda task, round_: 10.0 * task, prompts=("x", "x"))
    result = compared(same, same)
    (between,) = (p for p in result.pairs if (p.b.letter, p.a.letter) == ("c", "a"))
    tpot = next(one for one in between.figures if one.name == "tpot_ms")
    assert tpot.a == pytest.approx(200**0.5)
    assert (tpot.ratio.value, tpot.ratio.prompts) == (1, 2)


def test_what_differed_is_told_by_column() -> None:
    libraries = {"torch": "2.14.0", "bitsandbytes": "0.51"}
    result = compared(
        measured(),
        measured(
            model_info={
                "kernel": "Marlin",
                "libraries": libraries,
                "devices": [MODEL_INFO.device, "cuda:1"],
            },
            rounds=3,
        ),
    )
    found = {one.what: one.values for one in result.differences}
    old, device, name = MODEL_INFO.kernel, MODEL_INFO.device, MODEL_INFO.device_name
    assert found == {
        "kernel": (old, old, "Marlin", "Marlin"),
        "device": (*[f"{device} ({name})"] * 2, *[f"{device}+1 ({name})"] * 2),
        "rounds": ("2", "2", "3", "3"),
        "library torch": ("2.13.0", "2.13.0", "2.14.0", "2.14.0"),
        "library bitsandbytes": ("", "", "0.51", "0.51"),
    }


def test_the_same_again_differs_in_nothing() -> None:
    assert compared(measured(), measured()).differences == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"order": "together"}, "run 1 ran one at a time, run 2 together"),
        ({"prompts": ("else",)}, "runs 1 and 2 have no prompt in common"),
        ({"tokens": 7}, 'output tokens differ, as in prompt 1, round 1: a ("GPTQ" of run 1) 5, '),
        (
            {"model_info": {"checkpoint_hash": "e" * 64}},
            'a ("GPTQ" of run 1) ran the checkpoint ffffffffffff, c ("GPTQ" of run 2) eeeeeeeeeeee',
        ),
        ({"model_info": {"tokenizer_hash": "new"}}, "is a different model than in run 1"),
        ({"model_info": {"architecture": "Other"}}, "is a different model than in run 1"),
        (
            {
                "model_info": {"checkpoint_hash": ""},
                "profile": {"variants": [{"label": "GPTQ", "model": "org/model@v2"}]},
            },
            "ran the checkpoint org/model, ",
        ),
    ],
)
def test_what_is_not_comparable_is_refused(changes: dict[str, Any], said: str) -> None:
    first = measured(model_info={"checkpoint_hash": ""} if "profile" in changes else None)
    other = measured(**changes)
    with pytest.raises(NotComparable) as caught:
        compared(first, other)
    *_, last = caught.value.lines
    assert any(said in line for line in caught.value.lines)
    assert all(line.startswith("not comparable: ") for line in caught.value.lines)
    assert last.endswith("(--force compares them anyway)")
    assert any(said in reason for reason in compared(first, other, force=True).obstacles)


def test_another_path_of_the_same_checkpoint_is_comparable() -> None:
    result = compared(measured(), measured(model_info={"model": "/elsewhere/smol"}))
    assert [one.what for one in result.differences] == ["model"]


def test_prompt_tokens_count_too() -> None:
    other = measured()
    turns = [
        turn.model_copy(
            update={"answers": [a.model_copy(update={"prompt_tokens": 41}) for a in turn.answers]}
        )
        for turn in other.turns
    ]
    with pytest.raises(NotComparable, match="prompt tokens differ, as in prompt 1, round 1"):
        compared(measured(), other.model_copy(update={"turns": turns}))


def test_two_variants_within_a_run_may_be_of_different_checkpoints() -> None:
    ran = [dataclasses.replace(MODEL_INFO, checkpoint_hash=digit * 64) for digit in "ab"]
    variants = [variant("GPTQ", model_info=ran[0]), variant("NF4", model_info=ran[1])]
    result = compared(measured(variants=variants))
    assert {one.what: one.values for one in result.differences} == {
        "checkpoint": ("a" * 12, "b" * 12)
    }


def test_failed_answers_do_not_enter() -> None:
    whole = measured()
    first, *rest = whole.turns
    broken = [a.model_copy(update={"state": "failed"}) for a in first.answers]
    turns = [first.model_copy(update={"answers": broken}), *rest]
    result = compared(whole.model_copy(update={"turns": turns}))
    assert {one.ratio.pairs for one in result.pairs[0].figures if one.unit != "B"} == {5}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (snapshot(), "1.json: is a chat and not a measurement"),
        (
            measured(shown=["GPTQ"]),
            "1.json: does not show two variants "
            "(give snapshots of measurements with two different variants)",
        ),
        (
            measured(shown=["GPTQ", "GPTQ"]),
            "1.json: does not show two variants "
            "(give snapshots of measurements with two different variants)",
        ),
    ],
)
def test_what_is_no_run_is_told(wrong: Snapshot, said: str) -> None:
    with pytest.raises(UserError) as caught:
        compared(wrong)
    assert str(caught.value).startswith(said)


@given(st.integers(0, 10_000))
def test_columns_are_counted_as_in_spreadsheets(index: int) -> None:
    name = column_letter(index)
    assert sum((ord(c) - 96) * 26**n for n, c in enumerate(reversed(name))) == index + 1
