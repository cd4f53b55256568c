"""A snapshot as tables: correct, labelled figures, and no control sequences."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.printed_document import printed
from fakes.safe_line import is_clean
from fakes.saved_measurement import hostile_measurements
from fakes.saved_snapshots import (
    LEDGER,
    MIB,
    MODEL_INFO,
    answer,
    hostile_snapshots,
    hostile_text,
    snapshot,
    variant,
)
from fakes.timed_snapshots import measured
from quantchat.cli.snapshots import listed_blocks
from quantchat.document import figures
from quantchat.document.snapshot_tables import header, memory_table, variants_table
from quantchat.estimate.memory import Estimate
from quantchat.features.measure import tables as measurement
from quantchat.features.measure.tables import failures, how
from quantchat.report import comparison
from quantchat.report import snapshot as report
from quantchat.snapshot.compare import compare_runs
from quantchat.snapshot.compared_sides import Run
from quantchat.snapshot.schema import Snapshot, TurnRecord
from quantchat.snapshot.store import SnapshotSummary
from quantchat.snapshot.votes import VoteRecord, VotingRecord
from quantchat.statistics.latency import TurnTiming
from quantchat.system.process_memory import ProcessMemory
from quantchat.wire.messages import Failed


def row(text: str, name: str) -> str:
    """The line of the table that begins with `name`."""
    (line,) = [line for line in text.splitlines() if line.strip().startswith(name)]
    return " ".join(line.split())


# ------------------------------------------------------------ what is told


def test_a_prompt_that_nobody_counted_has_no_tokens_to_tell() -> None:
    turn = TurnRecord(
        number=1,
        prompt="p",
        divergence_point=None,
        answers=[answer("A", prompt_tokens=0), answer("B")],
    )
    assert row(printed(report.turn_table(turn)), "prompt").startswith("prompt – 4")


@pytest.mark.parametrize(
    ("predicted", "off"), [(-10, "(+0.0%)"), (10, "(+0.0%)"), (-MIB, "(-1.0%)"), (MIB, "(+1.0%)")]
)
def test_a_prediction_is_off_by_no_less_than_nothing(predicted: int, off: str) -> None:
    expected = Estimate(False, "bfloat16", 100 * MIB + predicted, {}, 0, 1, 0, 0, 0, 0)
    ledger = replace(LEDGER, weights=100 * MIB)
    saved = snapshot(variants=[variant("GPTQ", predicted=expected, ledger=ledger), variant("NF4")])
    assert off in row(printed(report.blocks(saved)), "predicted")


def test_what_took_seconds_is_told_in_seconds() -> None:
    text = printed(measurement.blocks(measured(lambda task, round_: 44_619.0)))
    assert row(text, "TPOT") == "TPOT 44.6 s 10.0 ms 0.000 0.000 to 0.000"
    assert "p50 44.6 s, p95 44.6 s, p99 44.6 s over" in text
    assert " 44619 ms" not in text


def test_each_figure_says_whether_it_was_contended() -> None:
    (turn,) = snapshot().turns
    text = printed(report.turn_table(turn))
    assert row(text, "TTFT") == "TTFT 100 ms together (contended) 100 ms one at a time"
    assert row(text, "decode throughput").endswith(
        "50.0 tok/s together (contended) 50.0 tok/s one at a time"
    )
    assert row(text, "prefill").endswith("356 tok/s together (contended) 356 tok/s one at a time")
    assert "20.0 · 20.0 · 20.0 ms together (contended)" in row(text, "ITL")
    assert "21.4 tok/s one at a time" in row(text, "end-to-end")
    assert "40 tokens, 8 of them from the KV cache" in row(text, "prompt")
    assert row(text, "CPU threads") == "CPU threads 1 1"
    assert "end of the answer" in row(text, "ended by")


def test_what_is_not_defined_is_a_dash_without_a_label() -> None:
    waiting = answer(
        "GPTQ", state="waiting", reason="", ids=[], pieces=[], times_ns=[], text="",
        timing=TurnTiming.of(received_ns=0, times_ns=[]),
    )  # fmt: skip
    turn = TurnRecord(number=3, prompt="", answers=[waiting], divergence_point=None)
    text = printed(report.turn_table(turn))
    assert row(text, "decode throughput") == "decode throughput –"
    assert row(text, "TTFT") == "TTFT –"
    assert row(text, "ended by") == "ended by not finished (waiting)"


def test_threads_are_told_only_of_the_cpu() -> None:
    on_gpu = answer("A", ledger=replace(LEDGER, device="cuda:0"))
    turn = TurnRecord(number=1, prompt="", answers=[on_gpu], divergence_point=None)
    assert "CPU threads" not in printed(report.turn_table(turn))


def test_the_divergence_is_counted_from_one() -> None:
    turn = TurnRecord(number=2, prompt="", answers=[answer("A"), answer("B")], divergence_point=4)
    assert "Turn 2: the answers diverge at token 5" in printed(report.turn_blocks(turn))


def test_what_ran_is_told() -> None:
    failed = variant(
        "NF4", model_info=None, load=None, ledger=None, memory=None,
        failure=Failed("out_of_memory", "8 GiB were needed, 2 were free"),
    )  # fmt: skip
    never = variant("Third", model_info=None, load=None, ledger=None, memory=None)
    text = printed(variants_table(snapshot(variants=[variant("GPTQ"), failed, never])))
    assert "TorchQuantLinear gptq 4 bits" in row(text, "kernel")
    assert "134.5 M" in row(text, "parameters")
    assert "cpu (A Processor, 2 threads)" in row(text, "device")
    assert "5.5 s (import 3.0 s, weights 2.0 s, warm-up 0.5 s)" in row(text, "load time")
    assert "8 GiB were needed" in row(text, "failure")
    assert "Third" not in text
    assert "\n note" not in text  # nothing to say, no row


def test_the_source_of_a_memory_figure_is_named() -> None:
    on_gpu = replace(LEDGER, device="cuda:0", other_live=0, slack=MIB, process=-1)
    torch = variant("A", ledger=on_gpu, memory=ProcessMemory(104 * MIB, "torch", "a container"))
    whole = variant(
        "B",
        ledger=replace(on_gpu, process=600 * MIB, non_torch=496 * MIB),
        memory=ProcessMemory(600 * MIB, "nvml"),
    )
    text = printed(memory_table(snapshot(variants=[torch, whole])))
    assert row(text, "weights") == "weights 100 MiB 100 MiB"
    assert row(text, "non-torch") == "non-torch – 496 MiB"
    assert row(text, "process total") == "process total – 600 MiB"
    assert row(text, "process, part known") == "process, part known 104 MiB"
    assert "reserved by torch, without the CUDA context: a container" in row(
        text, "source of the total"
    )
    assert "process total, from NVML" in row(text, "source of the total")


def test_what_lies_on_several_gpus_is_told_for_each() -> None:
    spread = replace(
        LEDGER,
        device="cuda:0",
        weights_by_device={"cuda:0": 70 * MIB, "cuda:1": 30 * MIB},
        reserved_by_device={"cuda:0": 80 * MIB, "cuda:1": 40 * MIB},
    )
    ran = replace(MODEL_INFO, device="cuda:0", devices=["cuda:0", "cuda:1"])
    saved = snapshot(variants=[variant("A", ledger=spread, model_info=ran), variant("B")])
    text = printed(memory_table(saved))
    assert row(text, "by device") == "by device cuda:0 70.0 MiB, cuda:1 30.0 MiB"
    assert row(text, "reserved, by device").endswith("cuda:0 80.0 MiB, cuda:1 40.0 MiB")
    assert "cuda:0+1 (" in row(printed(variants_table(saved)), "device")


def test_the_weights_are_told_by_dtype_and_the_quantizations_own_by_kind() -> None:
    text = printed(memory_table(snapshot()))
    assert "int32 60.0 MiB, bfloat16 40.0 MiB" in row(text, "by dtype")
    assert "scales 6.0 MiB, zeros 2.0 MiB, indices 1.0 MiB" in row(text, "of which scales")
    assert "predicted" not in text  # nothing is, no row


def test_the_peak_is_told_with_when_it_was() -> None:
    def told(peak_at_ns: int) -> str:
        ledger = replace(LEDGER, peak_at_ns=peak_at_ns)
        saved = snapshot(variants=[variant("GPTQ", ledger=ledger)])
        return row(printed(memory_table(saved)), "peak")

    assert told(-1) == "peak 900 MiB"
    assert told(999 * 10**6) == "peak 900 MiB, while loading"
    assert told(1_000 * 10**6) == "peak 900 MiB, in turn 1"
    ledger = replace(LEDGER, peak_at_ns=2**62)
    turn = snapshot().turns[0].model_copy(update={"number": 1_000_007, "task": 3, "round": 2})
    measured = snapshot(variants=[variant("GPTQ", ledger=ledger)], turns=[turn])
    assert "in round 2, prompt 3" in row(printed(memory_table(measured)), "peak")


def test_the_whole_snapshot_holds_what_was_said() -> None:
    text = printed(report.blocks(snapshot()))
    for said in (
        "Demo: GPTQ / NF4", "2026-11-03 14:25 +0100", "quantchat 0.1.0", "NVIDIA H100",
        "driver 580.95.05", "throttled by power cap", "What is the capital of France?", "Paris.",
    ):  # fmt: skip
        assert said in text


def test_of_a_measurement_the_result_comes_first() -> None:
    saved = measured()
    assert saved.measurement is not None
    doubted = saved.measurement.model_copy(update={"flags": ["A's throughput varied by 9 %"]})
    saved = saved.model_copy(update={"measurement": doubted})
    text = printed(report.blocks(saved))
    assert "Measured one at a time: 6 turns, 3 prompts, 2 rounds" in text
    assert "decode throughput 50.0 tok/s 100 tok/s 2.000 2.000 to 2.000" in " ".join(text.split())
    assert "! A's throughput varied by 9 %" in text
    assert (
        text.index("Measured one at a time")
        < text.index("What ran")
        < text.index("Round 1, prompt 1")
    )
    assert "Round 2, prompt 3" in text
    assert "Turn 1" not in text


def test_answers_that_went_on_past_their_end_say_so() -> None:
    saved = measured()
    assert saved.measurement is not None
    assert saved.measurement.ignore_eos
    past_end = "2 rounds, 1 warm-up, answers continued past their end"
    assert past_end in printed(measurement.blocks(saved))
    compared = compare_runs([Run("one.json", saved)])
    assert past_end in printed(comparison.blocks(compared, []))
    free = saved.measurement.model_copy(update={"ignore_eos": False})
    assert "past their end" not in how(saved.model_copy(update={"measurement": free}))
    long = [task.model_copy(update={"output_tokens": 64}) for task in free.tasks]
    grid = free.model_copy(update={"tasks": long})
    assert "past their end" in how(saved.model_copy(update={"measurement": grid}))


def test_one_of_a_thing_is_no_several() -> None:
    saved = measured(prompts=["one"], rounds=1)
    assert how(saved).startswith("one at a time: 1 turn, 1 prompt, 1 round, 1 warm-up")
    (turn,) = saved.turns
    broken = turn.answers[0].model_copy(update={"failure": Failed("internal", "why")})
    turn = turn.model_copy(update={"answers": [broken]})
    assert failures(saved.model_copy(update={"turns": [turn]})) == "1 answer failed, the first: why"
    assert [figures.plural(count, "warning") for count in (0, 1, 2)] == [
        "0 warnings", "1 warning", "2 warnings",
    ]  # fmt: skip


def test_a_measurement_of_one_side_has_no_ratios() -> None:
    text = printed(report.blocks(measured(shown=["GPTQ"])))
    assert "Measured one at a time" in text
    assert "B ÷ A" not in text


def test_blind_turns_are_counted_by_their_votes() -> None:
    (turn,) = snapshot().turns
    blind = turn.model_copy(update={"number": 2_000_004})
    vote = VoteRecord(turn=2_000_004, left="GPTQ", right="NF4", choice="left")
    voting = VotingRecord(seed=1, paced=True, votes=[vote])
    text = printed(report.blocks(snapshot(turns=[turn, blind], voting=voting)))
    assert "Turn 1" in text
    assert "Blind turn 1" in text
    assert "2000004" not in text


def test_without_a_gpu_the_reason_stands() -> None:
    saved = snapshot()
    device = replace(saved.environment.device, gpus=[], no_gpu="no NVIDIA driver is installed")
    environment = saved.environment.model_copy(update={"device": device})
    text = printed(header(snapshot(environment=environment)))
    assert "no GPU: no NVIDIA driver is installed" in text


# ------------------------------------------------------------ what a terminal would obey


@given(hostile_snapshots | hostile_measurements(), st.sampled_from([20, 80, 200]))
@settings(max_examples=60, deadline=None)
def test_nothing_hostile_reaches_the_terminal(saved: Snapshot, width: int) -> None:
    assert all(is_clean(line) for line in printed(report.blocks(saved), width).split("\n"))


@given(hostile_text, hostile_text, hostile_text)
@settings(max_examples=60, deadline=None)
def test_nothing_hostile_reaches_the_list(name: str, created: str, problem: str) -> None:
    listed = [
        SnapshotSummary(Path(f"{name}.json"), created, name, (name,), 1),
        SnapshotSummary(Path(name), problem=problem),
    ]
    assert all(is_clean(line) for line in printed(listed_blocks(listed)).split("\n"))


def test_markup_is_not_parsed() -> None:
    text = "[bold]x[/bold] :smile: [link=file:///]y"
    shown = answer("[red]A", text=text, failure=Failed("internal", text))
    turn = TurnRecord(number=1, prompt=text, answers=[shown], divergence_point=None)
    saved = snapshot(
        name=text,
        turns=[turn],
        variants=[variant("[red]A", note=text, model_info=replace(MODEL_INFO, kernel=text))],
    )
    drawn_text = printed(report.blocks(saved))
    assert drawn_text.count(text) == 6
    assert "[red]A" in drawn_text
    listed = printed(listed_blocks([SnapshotSummary(Path("[b]f.json"), "", text, ("[i]v",), 1)]))
    assert "[b]f.json" in listed
    assert "[i]v" in listed


# ------------------------------------------------------------ figures


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (None, "–"), (-1, "–"), (0, "0 B"), (999, "999 B"), (1000, "0.98 KiB"),
        (1536, "1.5 KiB"), (3 * 2**30, "3.0 GiB"), (2**63, "8388608 TiB"),
    ],
)  # fmt: skip
def test_sizes(count: int | None, shown: str) -> None:
    assert figures.size(count) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"), (float("inf"), "–"), (float("nan"), "–"), (0.421, "0.42"), (0.999, "1.0"),
        (42.12, "42.1"), (99.96, "100"), (421.4, "421"),
    ],
)  # fmt: skip
def test_numbers(value: float | None, shown: str) -> None:
    assert figures.number(value) == shown


def test_durations() -> None:
    assert figures.milliseconds(None) == "–"
    assert figures.milliseconds(42.12) == "42.1 ms"
    assert figures.milliseconds(12_000) == "12.0 s"
    assert [figures.seconds(s) for s in (0.42, 9.96, 42, 187)] == [
        "0.4 s", "10 s", "42 s", "3:07 min",
    ]  # fmt: skip
