"""The plots of a snapshot: which exist, what they show, and how they treat hostile labels."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from fakes.saved_measurement import measured, with_prompt_lengths
from fakes.saved_snapshots import LEDGER, MIB, answer, snapshot, variant
from quantchat.document import drawing
from quantchat.document.document import Plot
from quantchat.document.series import all_series, legend_label
from quantchat.report.plots import plots
from quantchat.snapshot.schema import AnswerRecord, Snapshot, TurnRecord


def named_plots(saved: Snapshot) -> dict[str, Plot]:
    return {plot.name: plot for plot in plots(saved)}


def words(plot: Plot) -> list[str]:
    """The text in a plot."""
    root = ElementTree.fromstring(drawing.svg(plot))
    return ["".join(text.itertext()).strip() for text in root.iter("text")]


def chat(*answers: AnswerRecord) -> Snapshot:
    turn = TurnRecord(number=1, prompt="?", answers=list(answers), divergence_point=None)
    return snapshot(turns=[turn])


def with_gaps(label: str, *gaps_ms: float) -> AnswerRecord:
    times = [1_000_000_000]
    for gap in gaps_ms:
        times.append(times[-1] + round(gap * 1e6))
    many = len(times)
    return answer(label, ids=[1] * many, pieces=["x"] * many, times_ns=times, text="x" * many)


# ------------------------------------------------------------ which there are


def test_of_a_chat() -> None:
    assert list(named_plots(snapshot())) == ["itl-over-answer", "itl-distribution", "memory-ledger"]


def test_of_a_measurement(tmp_path: Path) -> None:
    assert list(named_plots(measured(tmp_path))) == [
        "ratios", "itl-over-answer", "itl-distribution", "memory-ledger", "memory-by-turn",
        "memory-device",
    ]  # fmt: skip


@pytest.mark.parametrize(("lengths", "drawn"), [((40, 45, 41), False), ((128, 512, 2048), True)])
def test_the_context_is_drawn_where_prompts_differ_in_length(
    tmp_path: Path, lengths: tuple[int, ...], drawn: bool
) -> None:
    found = named_plots(with_prompt_lengths(measured(tmp_path), *lengths))
    assert ("context" in found) is drawn
    if drawn:
        shown = words(found["context"])
        assert {"128", "512", "2048", "decode throughput, tok/s", "TTFT, s"} <= set(shown)


def test_nothing_is_drawn_of_nothing() -> None:
    waiting = answer("GPTQ", state="waiting", ids=[], pieces=[], times_ns=[])
    empty = chat(waiting).model_copy(update={"variants": [variant("GPTQ", ledger=None)]})
    assert plots(empty) == []


# ------------------------------------------------------------ what they say


def test_a_legend_says_who_and_how() -> None:
    shown = words(named_plots(snapshot())["itl-over-answer"])
    assert "A: GPTQ (together)" in shown
    assert "B: NF4 (one at a time)" in shown


def test_a_variant_in_both_orders_is_two_series() -> None:
    saved = chat(answer("GPTQ"), answer("GPTQ", order="in-turn"), answer("NF4", state="failed"))
    series = all_series(saved)
    assert [one.name for one in series] == [
        "A: GPTQ (one at a time)",
        "A: GPTQ (together)",
    ]
    in_turn, contended = (drawing.series_style(one.place, one.order) for one in series)
    assert in_turn != contended


def test_gaps_above_the_plot_are_told() -> None:
    plot = named_plots(chat(with_gaps("GPTQ", *[20.0] * 500, 9000.0)))["itl-over-answer"]
    assert "1 of 501 gaps lie above the plot, the longest 9000 ms" in plot.note
    stalled = named_plots(chat(with_gaps("GPTQ", *[20.0] * 500, 44619.0)))["itl-over-answer"]
    assert "the longest 44.6 s." in stalled.note
    steady = named_plots(chat(with_gaps("GPTQ", *[20.0] * 500)))["itl-over-answer"]
    assert "above" not in steady.note


def test_a_very_long_answer_makes_no_larger_a_drawing() -> None:
    plot = named_plots(chat(with_gaps("GPTQ", *[20.0, 30.0] * 10_000)))["itl-over-answer"]
    assert len(drawing.svg(plot)) < 60_000


def test_the_ledger_draws_what_is_known() -> None:
    on_gpu = replace(
        LEDGER, device="cuda:0", other_live=10 * MIB, slack=20 * MIB, non_torch=-1, process=-1
    )
    shown = words(named_plots(snapshot(variants=[variant("GPTQ", ledger=on_gpu)]))["memory-ledger"])
    assert {"weights", "KV cache", "other live tensors", "allocator slack", "peak"} <= set(shown)
    assert "non-torch" not in shown
    assert not any(text.startswith("other memory") for text in shown)
    on_cpu = words(named_plots(snapshot())["memory-ledger"])
    assert "other memory of the process" in on_cpu
    assert "allocator slack" not in on_cpu


def test_ratios_say_which_way_is_better(tmp_path: Path) -> None:
    plot = named_plots(measured(tmp_path, labels=("GPTQ", "NF4")))["ratios"]
    assert "one at a time" in plot.note
    shown = words(plot)
    assert "decode throughput (more is better)" in shown
    assert "TPOT (less is better)" in shown
    assert any("NF4" in text for text in shown)
    assert any("÷ A: GPTQ" in text for text in shown)


# ------------------------------------------------------------ what they are made of


def test_colours_are_left_to_the_page() -> None:
    drawn = drawing.svg(named_plots(snapshot())["itl-over-answer"])
    assert "var(--series-0)" in drawn
    assert "var(--series-1)" in drawn
    assert not re.findall(r"#(?:0072b2|d55e00|1b1f24|ffffff)", drawn)


def test_a_drawing_refers_to_nothing_outside() -> None:
    for plot in plots(snapshot()):
        drawn = drawing.svg(plot)
        assert "http" not in drawn
        assert "<style" not in drawn
        assert drawn.startswith("<svg ")
        assert 'role="img"' in drawn


def test_the_same_snapshot_makes_the_same_files() -> None:
    plot = named_plots(snapshot())["itl-distribution"]
    assert drawing.svg(plot) == drawing.svg(plot)
    assert drawing.png(plot) == drawing.png(plot)
    assert drawing.png(plot).startswith(b"\x89PNG\r\n")


@pytest.mark.parametrize(
    "label",
    [
        "</svg><script>x</script>", "$\\frac{$", "_hidden", "#0072b2", "漢字 😀", "a\x1b]0;t\x07",
        "\uffff\ufffe",
    ],
)  # fmt: skip
def test_a_label_is_text(label: str) -> None:
    plot = named_plots(chat(with_gaps(label, 20.0, 30.0)))["itl-over-answer"]
    expected = f"C: {legend_label(0, label)[3:]} (together)"
    assert expected in words(plot)
    assert drawing.png(plot)


def test_a_long_label_is_cut() -> None:
    assert legend_label(1, "x" * 500) == f"B: {'x' * 47}…"
    assert legend_label(26, "y") == "no. 27: y"
