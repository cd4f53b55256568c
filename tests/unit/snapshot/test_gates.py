"""A gate fails only if the whole interval shows it."""

from __future__ import annotations

import dataclasses
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.saved_snapshots import LEDGER, MIB, variant
from fakes.timed_snapshots import TokenMs, measured
from quantchat.errors import UserError
from quantchat.snapshot.compared_sides import Run, columns
from quantchat.snapshot.expression import parse
from quantchat.snapshot.gates import judge
from quantchat.snapshot.ratios import compare
from quantchat.snapshot.schema import Snapshot
from quantchat.snapshot.verdicts import Verdict
from quantchat.system.process_memory import ProcessMemory


def judged(text: str, *snapshots: Snapshot) -> Verdict:
    sides = columns([Run(f"{n}.json", one) for n, one in enumerate(snapshots)])
    return judge(parse(text, [side.letter for side in sides]), sides)


def steady(task: int, round_: int) -> float:
    return 20.0


def noisy(mean: float) -> TokenMs:
    """Scatters by 5 % from prompt to prompt, in the same way on each call."""
    return lambda task, round_: mean * (1 + 0.05 * (-1) ** task)


SIX = tuple("prompt {n}" for n in range(6))


@pytest.mark.parametrize(
    ("text", "status"),
    [
        # b decodes at 0.9 times a's speed, give or take 5 % by prompt.
        ("b.decode_tps < 0.99 * a.decode_tps", "failed"),
        ("b.decode_tps < 0.91 * a.decode_tps", "undecided"),
        ("b.decode_tps < 0.80 * a.decode_tps", "passed"),
        ("b.decode_tps / a.decode_tps < 0.99", "failed"),
        ("0.99 * a.decode_tps > b.decode_tps", "failed"),
        ("0.91 > b.decode_tps / a.decode_tps", "undecided"),
        ("b.tpot_ms >= a.tpot_ms", "failed"),
        # The same as differences, where the interval is that of left minus right.
        ("b.tpot_ms - a.tpot_ms > 0", "failed"),
        ("b.tpot_ms > a.tpot_ms + 2", "undecided"),
        ("b.tpot_ms > a.tpot_ms + 9", "passed"),
        ("b.ttft_ms > 90", "failed"),
        ("b.ttft_ms > 110", "undecided"),
        ("b.ttft_ms > 130", "passed"),
    ],
)
def test_statuses(text: str, status: str) -> None:
    snapshot = measured(steady, noisy(20 / 0.9), prompts=SIX)
    assert judged(text, snapshot).status == status


def test_a_ratio_is_judged_on_the_interval_of_the_table() -> None:
    snapshot = measured(steady, noisy(21.0), prompts=SIX)
    verdict = judged("b.tpot_ms > 1.01 * a.tpot_ms", snapshot)
    table = {one.name: one.ratio for one in compare(*columns([Run("", snapshot)]))}["tpot_ms"]
    assert verdict.judged.quantity == "b ÷ a, TPOT"
    assert (verdict.judged.value, verdict.judged.low, verdict.judged.high) == (
        table.value,
        table.low,
        table.high,
    )
    assert verdict.judged.threshold == pytest.approx(1.01)


@pytest.mark.parametrize(
    "text",
    [
        "2 * b.tpot_ms > 2.02 * a.tpot_ms",
        "b.tpot_ms / 1.01 > a.tpot_ms",
        "1.01 * a.tpot_ms < b.tpot_ms",
        "b.tpot_ms * a.tpot_ms > (1 + 0.02 / 2) * a.tpot_ms * a.tpot_ms",
        "1 / (1.01 * a.tpot_ms) > 1 / b.tpot_ms",
    ],
)
def test_however_a_ratio_is_written_it_is_the_same(text: str) -> None:
    snapshot = measured(steady, noisy(21.0), prompts=SIX)
    plain = judged("b.tpot_ms > 1.01 * a.tpot_ms", snapshot)
    other = judged(text, snapshot)
    assert other.status == plain.status
    if other.judged.quantity == plain.judged.quantity:
        assert other.judged.low == plain.judged.low
        assert other.judged.threshold == pytest.approx(1.01)
    else:  # it is b's share in a
        assert plain.judged.high is not None
        assert other.judged.low == pytest.approx(1 / plain.judged.high)


@settings(deadline=None, max_examples=50)
@given(
    a=st.lists(st.floats(1, 100), min_size=6, max_size=6),
    b=st.lists(st.floats(1, 100), min_size=6, max_size=6),
    threshold=st.floats(0.1, 10),
    relation=st.sampled_from(["<", "<=", ">", ">="]),
)
def test_a_gate_and_its_opposite_never_both_fail(
    a: list[float], b: list[float], threshold: float, relation: str
) -> None:
    snapshot = measured(
        lambda task, round_: a[2 * task + round_ - 3],
        lambda task, round_: b[2 * task + round_ - 3],
    )
    opposite = {"<": ">=", "<=": ">", ">": "<=", ">=": "<"}[relation]
    for left, right in (
        ("b.tpot_ms", f"{threshold} * a.tpot_ms"),
        ("b.tpot_ms - a.ttft_ms", f"{threshold}"),
    ):
        verdict, other = (judged(f"{left} {r} {right}", snapshot) for r in (relation, opposite))
        assert {verdict.status, other.status} in ({"failed", "passed"}, {"undecided"})
        if verdict.status == "failed":
            assert verdict.judged.low is not None
            assert verdict.judged.high is not None
            assert not verdict.judged.low < verdict.judged.threshold < verdict.judged.high


def test_a_single_measurement_decides_nothing() -> None:
    snapshot = measured(prompts=("one",), rounds=1)
    for text in ("b.tpot_ms < a.tpot_ms", "b.tpot_ms + 1 < a.tpot_ms", "a.ttft_ms > 1"):
        assert judged(text, snapshot).status == "undecided"


def test_one_prompt_is_judged_on_its_rounds() -> None:
    snapshot = measured(prompts=("one",), rounds=3)
    assert judged("b.tpot_ms < 0.6 * a.tpot_ms", snapshot).status == "failed"
    assert judged("b.tpot_ms + 1 < a.tpot_ms", snapshot).status == "failed"


def with_memory(weights: int, process: int | None, source: str = "nvml") -> Snapshot:
    return measured(
        variants=[
            variant("GPTQ", memory=ProcessMemory(700 * MIB, source)),
            variant(
                "NF4",
                ledger=dataclasses.replace(LEDGER, weights=weights),
                memory=ProcessMemory(process, source),
            ),
        ]
    )


def test_memory_is_taken_as_it_is() -> None:
    snapshot = with_memory(90 * MIB, 900 * MIB)
    for text, status in (
        ("b.weights_bytes > 0.89 * a.weights_bytes", "failed"),
        ("b.weights_bytes > 0.91 * a.weights_bytes", "passed"),
        ("b.process_bytes > 1.1 * a.process_bytes", "failed"),
        ("b.process_bytes > 800e6", "failed"),
        ("b.process_bytes - b.weights_bytes > 900e6", "passed"),
    ):
        verdict = judged(text, snapshot)
        assert verdict.status == status, text
        assert not verdict.judged.sampled
        assert verdict.judged.low == verdict.judged.high == verdict.judged.value


@pytest.mark.parametrize(
    "text",
    [
        "b.process_bytes > 1.1 * a.process_bytes",
        "b.process_bytes > 1",
        "b.process_bytes - a.process_bytes > 1",
        "b.process_bytes / b.tpot_ms > 1",
    ],
)
def test_resident_memory_decides_nothing(text: str) -> None:
    verdict = judged(text, with_memory(90 * MIB, 900 * MIB, "resident"))
    assert (verdict.status, verdict.judged.low, verdict.judged.high) == ("undecided", None, None)


def test_memory_and_time_in_one_gate() -> None:
    """MBU-like: bytes of weights a second."""
    snapshot = measured(steady, noisy(20.0), prompts=SIX)
    rate = f"{100 * MIB * 50}"
    assert judged(f"b.weights_bytes * b.decode_tps > 0.9 * {rate}", snapshot).status == "failed"
    assert judged(f"b.weights_bytes * b.decode_tps > 1.0 * {rate}", snapshot).status == "undecided"


def test_between_runs() -> None:
    old, new = measured(steady, steady), measured(steady, noisy(30.0))
    assert judged("d.tpot_ms > 1.1 * b.tpot_ms", old, new).status == "failed"
    assert judged("c.tpot_ms > a.tpot_ms", old, new).status == "passed"


def test_what_did_not_change_tells_a_slow_machine_from_a_slow_variant() -> None:
    """The whole second run is 1.5 times slower; only its right side is slower than that."""
    against_left = "d.tpot_ms / c.tpot_ms > 1.05 * b.tpot_ms / a.tpot_ms"
    old = measured(steady, noisy(30.0), prompts=SIX)
    slow_machine = measured(lambda *_: 30.0, noisy(45.0), prompts=SIX)
    slow_variant = measured(lambda *_: 30.0, noisy(60.0), prompts=SIX)
    assert judged("d.tpot_ms > 1.05 * b.tpot_ms", old, slow_machine).status == "failed"
    assert judged(against_left, old, slow_machine).status == "passed"
    assert judged(against_left, old, slow_variant).status == "failed"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("b.process_bytes > 1", "b.process_bytes was not measured"),
        ("b.process_bytes > a.process_bytes", "b.process_bytes was not measured"),
        ("b.process_bytes > a.process_bytes + 1", "b.process_bytes was not measured"),
        ("b.tpot_ms / 0 > 1", "has no finite value"),
        ("b.tpot_ms > 1 / 0", "has no finite value"),
        ("a.tpot_ms / (b.tpot_ms - b.tpot_ms) > 1", "has no finite value"),
        ("a.weights_bytes / (1 - 1) > 1", "has no finite value"),
        ("c.tpot_ms < a.tpot_ms", "no prompt was measured in all columns of the gate"),
        ("c.tpot_ms + 1 < a.tpot_ms", "no prompt was measured in all columns of the gate"),
    ],
)
def test_what_cannot_be_judged_is_told(text: str, said: str) -> None:
    ledger = dataclasses.replace(LEDGER, process=-1)
    unknown = variant("NF4", ledger=ledger, memory=ProcessMemory(None, "unknown"))
    first = measured(variants=[variant("GPTQ"), unknown])
    other = measured(prompts=("another",))
    with pytest.raises(UserError, match=said):
        judged(text, first, other)


def test_a_resample_that_divides_by_zero_decides_nothing() -> None:
    """Some resamples of these prompts have no difference in the denominator."""
    sides: dict[tuple[str, int], float] = {("a", 1): 20, ("b", 1): 20, ("a", 2): 20, ("b", 2): 30}
    snapshot = measured(
        lambda task, round_: sides["a", task],
        lambda task, round_: sides["b", task],
        prompts=("one", "two"),
    )
    verdict = judged("1 / (b.tpot_ms - a.tpot_ms) > 0", snapshot)
    assert verdict.status == "undecided"


@pytest.mark.parametrize("relation", ["<", "<=", ">", ">="])
def test_exactly_at_the_threshold(relation: str) -> None:
    """Nothing varies, and both are equal: only the relations that hold for equals fail."""
    snapshot = measured(steady, steady)
    for text in (f"b.tpot_ms {relation} a.tpot_ms", f"b.tpot_ms - a.tpot_ms {relation} 0"):
        expected = "failed" if relation in ("<=", ">=") else "passed"
        assert judged(text, snapshot).status == expected


def test_every_figure_can_be_named() -> None:
    snapshot = with_memory(90 * MIB, 900 * MIB)
    for column, figure in product("ab", ("ttft_ms", "tpot_ms", "decode_tps", "end_to_end_ms")):
        assert judged(f"{column}.{figure} > 0", snapshot).status == "failed"
