"""Gates on scores and evaluations."""

from __future__ import annotations

import math
from typing import Any

import pytest

from fakes.saved_evaluations import done, evaluation, figure
from fakes.saved_scores import read, score_record
from fakes.saved_snapshots import MODEL_INFO, snapshot, variant
from quantchat.errors import UserError
from quantchat.snapshot.compared_sides import column_letter
from quantchat.snapshot.expression import parse
from quantchat.snapshot.quality_gates import (
    judge_quality,
    paired_difference,
    quality_columns,
    share,
)
from quantchat.snapshot.schema import Snapshot
from quantchat.snapshot.verdicts import Verdict
from quantchat.statistics.flips import Flips


def scored() -> Snapshot:
    return snapshot(
        variants=[variant("NF4"), variant("GPTQ"), variant("bf16")],
        score=score_record(MODEL_INFO),
    )


def evaluated(reference: str, model: str, **more: Any) -> Snapshot:
    found = evaluation(
        done("bf16", "reference", figure(reference)), done("NF4", "variant", figure(model), **more)
    )
    return snapshot(variants=[variant("NF4")], evaluation=found)


def judged(text: str, *snapshots: Snapshot, kind: Any = "score") -> Verdict:
    columns = quality_columns(kind, snapshots, column_letter)
    gate = parse(text, [one.letter for one in columns], "--fail-unless", kind)
    return judge_quality(gate, columns)


@pytest.mark.parametrize(
    ("gate", "status"),
    [
        ("a.kld < 0.5", "passed"),
        ("a.kld < 0.01", "failed"),
        ("a.kld_p99 > 0.001", "passed"),
        ("a.top1_agreement > 0.5", "passed"),
        ("a.top1_agreement > 0.99", "failed"),
        ("0.5 > a.kld", "passed"),
        ("a.perplexity < 1.05 * ref.perplexity", "failed"),
        ("a.perplexity < 3 * ref.perplexity", "passed"),
        ("c.perplexity <= ref.perplexity", "passed"),  # bf16 is the reference itself
    ],
)
def test_scores(gate: str, status: str) -> None:
    assert judged(gate, scored()).status == status


def test_a_value_near_the_threshold_is_undecided_and_says_how_many_tokens_decide() -> None:
    kld = judged("a.kld < 1", scored()).judged
    near = judged(f"a.kld < {kld.value * 1.02}", scored())
    assert near.status == "undecided"
    assert near.judged.unit == "token"
    assert near.judged.needed is not None and near.judged.needed > near.judged.units


def test_the_perplexity_is_paired_with_the_references() -> None:
    """Both read the same tokens: their ratio is known far better than either of them."""
    ratio = judged("a.perplexity / ref.perplexity < 9", scored()).judged
    (model,) = [one for one in score_record(MODEL_INFO).models if one.label == "NF4"]
    assert model.divergence is not None
    log = model.divergence.log_ratio
    assert ratio.low is not None and ratio.high is not None
    assert ratio.value == pytest.approx(math.exp(log.value))
    assert log.wider is not None
    assert math.log(ratio.high / ratio.low) / 2 == pytest.approx(2.2 * log.wider, rel=0.2)


def test_two_variants_get_both_margins() -> None:
    models = [
        read("bf16", "reference", MODEL_INFO, 0.001),
        read("one", "variant", MODEL_INFO, 0.2),
        read("another", "variant", MODEL_INFO, 0.25),
    ]
    both = snapshot(
        variants=[variant("one"), variant("another")],
        score=score_record(MODEL_INFO, models=models),
    )
    one, other, difference = (
        judged(f"{text} < 1", both).judged for text in ("a.kld", "b.kld", "b.kld - a.kld")
    )
    assert all(None not in (x.low, x.high) for x in (one, other, difference))
    width = [x.high - x.low for x in (one, other, difference)]  # type: ignore[operator]
    assert width[2] == pytest.approx(width[0] + width[1])


@pytest.mark.parametrize(
    ("reference", "model", "gate", "status"),
    [
        ("1" * 400, "1" * 400, "a.accuracy > ref.accuracy - 0.02", "passed"),
        ("1" * 20, "1" * 20, "a.accuracy > ref.accuracy - 0.01", "undecided"),  # too few
        ("1" * 400, "1" * 340 + "0" * 60, "a.accuracy > ref.accuracy - 0.05", "failed"),
        ("1" * 400, "1" * 340 + "0" * 60, "a.flips < 0.1", "failed"),
        ("10" * 200, "01" * 200, "a.accuracy >= ref.accuracy - 0.2", "passed"),
        ("10" * 200, "01" * 200, "a.flips < 0.9", "failed"),
        ("1" * 300 + "0" * 100, "1" * 400, "ref.accuracy < 0.9", "passed"),
    ],
)
def test_accuracy_is_paired_by_document(reference: str, model: str, gate: str, status: str) -> None:
    assert judged(gate, evaluated(reference, model), kind="eval").status == status


@pytest.mark.parametrize(
    ("kind", "gate", "said"),
    [
        ("score", "b.kld < 1", "b.kld was not measured"),  # it failed
        ("score", "c.kld < 1", "c.kld was not measured"),  # the reference against itself
        ("score", "a.tpot_ms < 1", '"tpot_ms" is a figure of `quantchat run`'),
        ("score", "a.kld / (1 - 1) < 1", "divides by zero"),
        ("eval", "a.kld < 1", '"kld" is a figure of `quantchat score`'),
        ("eval", "a.acuracy < 1", "no figure is called"),
    ],
)
def test_bad_gates(kind: str, gate: str, said: str) -> None:
    given = scored() if kind == "score" else evaluated("10", "11")
    with pytest.raises(UserError, match=said):
        judged(gate, given, kind=kind)


def test_columns_go_on_from_one_snapshot_to_the_next() -> None:
    columns = quality_columns("score", [scored(), scored()], column_letter)
    assert [(one.letter, one.label) for one in columns] == [
        ("a", "NF4"), ("b", "GPTQ"), ("c", "bf16"),
        ("d", "NF4"), ("e", "GPTQ"), ("f", "bf16"), ("ref", "bf16"),
    ]  # fmt: skip


def test_no_change_at_all_has_a_width_too() -> None:
    none = paired_difference(Flips(50, 0, 0))
    assert none.value == none.centre == 0
    assert 0.02 < none.margin < 0.05
    certain = share(0, 50)
    assert certain.value == 0
    assert certain.centre + certain.margin == pytest.approx(0.085, abs=0.01)  # exact: 0.071
