"""What a comparison with scripted workers writes into its snapshot."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.fake_nvml import GIB, FakeGpu, FakeNvml
from fakes.model_folder import LLAMA_2_7B, llama_tensors, write_model
from fakes.scripted_worker import Script, ScriptedProvider, model_info, starter
from quantchat.host.limits import compute_threads
from quantchat.profile.model import Generation, Profile
from quantchat.session import live_variant
from quantchat.session.comparison import Comparison
from quantchat.session.conversation import Answer, AnswerState
from quantchat.session.live_variant import State
from quantchat.session.recorder import record
from quantchat.snapshot import store
from quantchat.system.gpus import Gpus
from quantchat.system.sampler import DeviceSampler
from quantchat.wire.messages import Sampling
from quantchat.wire.variant import Ledger

MS = 1_000_000
ON_GPU = Ledger("cuda:0", 3 * GIB, {}, GIB, 0, 0, -1, -1, 4 * GIB, 1)

PROFILE = Profile.model_validate(
    {
        "name": "Three",
        "variants": [
            {"label": "G", "engine": "gptq", "model": "m"},
            {"label": "B", "engine": "bitsandbytes", "model": "m"},
            {"label": "T", "engine": "transformers", "model": "m"},
        ],
        "generation": {"system": "Be brief.", "temperature": 0.5, "seed": 7},
    }
)

SCRIPTS = {
    "G": Script(model_info("kernel of G"), note="made of Q4_1", answer=lambda _: "one two \ud800"),
    "B": Script(model_info("kernel of B"), answer=lambda _: "one two three"),
    "T": Script(model_info("kernel of T")),
}


async def loaded(comparison: Comparison) -> None:
    changed = asyncio.Event()
    comparison.on_change = lambda _: changed.set()
    while not all(side.state is State.READY for side in comparison.sides):
        await changed.wait()
        changed.clear()


@asynccontextmanager
async def comparing(folder: Path) -> AsyncIterator[Comparison]:
    """A comparison whose pair is loaded."""
    comparison = Comparison(
        PROFILE, provider=ScriptedProvider(SCRIPTS), start=starter(SCRIPTS, folder)
    )
    try:
        comparison.open()
        await loaded(comparison)
        yield comparison
    finally:
        await comparison.close()


def sampler_of(*processes: tuple[int, int]) -> DeviceSampler:
    nvml = FakeNvml(FakeGpu(processes=list(processes)))
    return DeviceSampler(Gpus(lambda: nvml, lambda pid: False))


async def test_turns_are_counted_by_their_places(tmp_path: Path) -> None:
    async with comparing(tmp_path) as comparison:
        for prompt in ("What?", "Why?"):
            comparison.ask(prompt)
            await comparison.wait()
        comparison.replace_last("Who?")
        await comparison.wait()
        turns = record(comparison, sampler_of()).turns
    assert [(turn.number, turn.prompt) for turn in turns] == [(1, "What?"), (2, "Who?")]


async def test_a_turn_is_recorded_token_by_token(tmp_path: Path) -> None:
    async with comparing(tmp_path) as comparison:
        comparison.ask("What?")
        await comparison.wait()
        snapshot = record(comparison, sampler_of())
    (turn,) = snapshot.turns
    assert turn.prompt == "What?"
    assert turn.divergence_point == 2
    first, second = turn.answers
    assert (first.variant, second.variant) == ("G", "B")
    assert first.ids[:2] == second.ids[:2]
    assert first.pieces == ["one", " two", " \ud800"]
    assert [t - first.received_ns for t in first.times_ns] == [150 * MS, 170 * MS, 190 * MS]
    assert (first.state, first.reason, first.text) == ("done", "eos", "one two \ud800")
    assert (first.prompt_tokens, first.cached_tokens, first.order) == (40, 0, "together")
    assert first.timing.ttft_ms == pytest.approx(150)
    assert first.timing.decode_tok_s == pytest.approx(50)
    assert first.timing.prefill_tok_s == pytest.approx(400)
    assert first.request is not None
    assert first.request.sampling == Sampling(temperature=0.5, seed=7)
    assert (first.request.system, first.request.messages) == ("Be brief.", 2)
    assert first.request.threads == max(1, compute_threads() // 2)


async def test_what_ran_is_recorded(tmp_path: Path) -> None:
    async with comparing(tmp_path) as comparison:
        snapshot = record(comparison, sampler_of())
    assert snapshot.shown == ["G", "B"]
    assert snapshot.name == snapshot.profile["name"] == "Three"
    left, right, third = snapshot.variants
    assert left.model_info == SCRIPTS["G"].model_info
    assert left.load is not None
    assert (left.load.import_s, left.load.weights_s, left.load.warmup_s) == (2.1, 1.0, 0.3)
    assert left.load.total_s > 0
    assert left.note == "made of Q4_1"
    assert right.state == "ready"
    assert (third.state, third.model_info, third.load, third.memory) == ("idle", None, None, None)


async def test_what_a_variant_holds_is_measured(tmp_path: Path) -> None:
    async with comparing(tmp_path) as comparison:
        left, _ = comparison.sides
        left.ledger = ON_GPU
        assert left.pid is not None
        snapshot = record(comparison, sampler_of((left.pid, 5 * GIB)))
    memory, ledger = snapshot.variants[0].memory, snapshot.variants[0].ledger
    assert memory is not None
    assert ledger is not None
    assert (memory.bytes, memory.source) == (5 * GIB, "nvml")
    assert (ledger.process, ledger.non_torch) == (5 * GIB, GIB)


async def test_what_was_asked_for_then_stays_after_the_settings_change(tmp_path: Path) -> None:
    async with comparing(tmp_path) as comparison:
        comparison.ask("one")
        await comparison.wait()
        comparison.set_generation(Generation(max_new_tokens=9))
        comparison.order = "in-turn"
        comparison.ask("two")
        await comparison.wait()
        snapshot = record(comparison, sampler_of())
    first, second = (turn.answers[0] for turn in snapshot.turns)
    assert first.request is not None
    assert second.request is not None
    assert (first.request.max_new_tokens, first.request.system) == (512, "Be brief.")
    assert (second.request.max_new_tokens, second.request.system) == (9, "")
    assert (first.order, second.order) == ("together", "in-turn")


async def test_a_variant_that_was_ended_keeps_what_it_ran(tmp_path: Path) -> None:
    async with comparing(tmp_path) as comparison:
        comparison.ask("one")
        await comparison.wait()
        comparison.choose_pair(0, 2)
        await loaded(comparison)
        snapshot = record(comparison, sampler_of())
    ended = snapshot.variants[1]
    assert snapshot.shown == ["G", "T"]
    assert ended.model_info is not None
    assert ended.model_info.kernel == "kernel of B"
    assert ended.load is not None
    assert ended.memory is None
    assert snapshot.turns[0].answers[1].model_info is None  # the variant's own record names it


async def test_an_answer_of_an_earlier_load_names_what_it_ran_on(tmp_path: Path) -> None:
    async with comparing(tmp_path) as comparison:
        comparison.ask("one")
        await comparison.wait()
        answer = next(iter(comparison.conversation.turns[0].answers.values()))
        assert answer.ran_on is not None
        answer.ran_on = replace(answer.ran_on, model_info=model_info("another"))
        snapshot = record(comparison, sampler_of())
    first, second = snapshot.turns[0].answers
    assert first.model_info is not None
    assert first.model_info.kernel == "another"
    assert second.model_info is None


async def test_ids_of_different_tokenizers_are_not_compared(tmp_path: Path) -> None:
    async with comparing(tmp_path) as comparison:
        comparison.ask("one")
        await comparison.wait()
        answer = next(iter(comparison.conversation.turns[0].answers.values()))
        assert answer.ran_on is not None
        for other in ("other", ""):
            answer.ran_on = replace(
                answer.ran_on, model_info=replace(answer.ran_on.model_info, tokenizer_hash=other)
            )
            assert record(comparison, sampler_of()).turns[0].divergence_point is None


async def test_the_middle_of_an_answer_is_a_snapshot_too(tmp_path: Path) -> None:
    async with comparing(tmp_path) as comparison:
        comparison.conversation.begin(
            "now",
            [
                Answer("G", "in-turn", AnswerState.STREAMING, received_ns=1, ids=[5],
                       pieces=["x"], times_ns=[9], text="x"),
                Answer("B", "in-turn"),
            ],
        )  # fmt: skip
        snapshot = record(comparison, sampler_of())
        growing = comparison.conversation.turns[0].answers["G"]
        growing.ids.append(6)
    going, waiting = snapshot.turns[0].answers
    assert (going.state, going.ids, going.reason) == ("streaming", [5], "")
    assert (waiting.state, waiting.request, waiting.timing.ttft_ms) == ("waiting", None, None)
    assert store.load(store.save(snapshot, tmp_path)) == snapshot


async def test_the_environment_tells_the_machine_and_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    async with comparing(tmp_path) as comparison:
        snapshot = record(comparison, sampler_of())
    environment = snapshot.environment
    assert environment.python.startswith("CPython 3.")
    assert environment.libraries["psutil"]
    assert environment.device.driver == "580.95.05"
    assert environment.device.gpus[0].sm_clock_mhz == 1980
    assert environment.device.host.cpu
    assert b"hf_secret" not in store.dumps(snapshot)


# ------------------------------------------------------------ files of the model


@asynccontextmanager
async def comparing_llamas(
    folder: Path, pair: tuple[int, int] = (0, 1), device: str = "cpu"
) -> AsyncIterator[Comparison]:
    """A comparison whose `pair` runs what lies in `folder`."""
    ran = replace(model_info(), model=str(folder), device=device)
    scripts = {label: Script(ran) for label in SCRIPTS}
    comparison = Comparison(
        PROFILE, provider=ScriptedProvider(scripts), start=starter(scripts, folder)
    )
    comparison.pair = pair
    try:
        comparison.open()
        await loaded(comparison)
        yield comparison
    finally:
        await comparison.close()


async def test_a_snapshot_reads_no_file_of_the_model(tmp_path: Path) -> None:
    """A share that is gone by then would hold up the loop, and the end of the program."""
    llama = write_model(tmp_path / "llama", LLAMA_2_7B, llama_tensors(LLAMA_2_7B))
    async with comparing_llamas(llama) as comparison:
        known = [one.predicted for one in record(comparison).variants[:2]]
        assert None not in known
        shutil.rmtree(llama)
        assert [one.predicted for one in record(comparison).variants[:2]] == known


@pytest.mark.parametrize(
    ("device", "capabilities", "size"),
    [
        ("cuda:0", [(8, 6)], 2),
        ("cuda:0", [(8, 9), (8, 0)], 1),
        ("cuda:1", [(8, 9), (8, 0)], 2),
        ("cpu", [(9, 0)], 2),
    ],
)
async def test_the_predicted_memory_counts_what_the_device_dequantizes(
    tmp_path: Path, device: str, capabilities: list[tuple[int, int]], size: int
) -> None:
    config = {**LLAMA_2_7B, "quantization_config": {"quant_method": "fp8"}}
    tensors = {"model.layers.0.mlp.up_proj.weight": ("F8_E4M3", (4096, 4096))}
    folder = write_model(tmp_path / "fp8", config, tensors)
    boards = [FakeGpu(uuid=f"GPU-{n}", capability=c) for n, c in enumerate(capabilities)]
    sampler = DeviceSampler(Gpus(lambda: FakeNvml(*boards), lambda pid: False))
    async with comparing_llamas(folder, (2, 0), device) as comparison:
        predicted = record(comparison, sampler).variants[2].predicted
    assert predicted is not None
    assert predicted.weights == size * 4096**2


async def test_a_model_whose_files_hang_is_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_variant, "HEADERS_S", 0.01)
    os.mkfifo(tmp_path / "config.json")  # opening it waits for its writer
    async with comparing_llamas(tmp_path) as comparison:
        assert record(comparison).variants[0].predicted is None
