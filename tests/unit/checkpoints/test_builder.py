"""The builder builds each stage once, shares it, and stores it completely or not at all."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from fakes.scripted_jobs import Jobs
from fakes.tiny_wheel import TinyIndex
from fakes.waiting import until
from quantchat.checkpoints.builder import CheckpointBuilder
from quantchat.checkpoints.provider import PreparedModel
from quantchat.engines.bitsandbytes import BitsAndBytes
from quantchat.engines.gptq import Gptq
from quantchat.engines.quantize import Quantize
from quantchat.engines.transformers import Transformers
from quantchat.engines.variant import DEMO_MODEL
from quantchat.errors import UserError
from quantchat.host.job_runner import JobFailed
from quantchat.host.worker_process import Place, Worker
from quantchat.wire.messages import Failed, Progress

NF4 = BitsAndBytes(label="NF4", engine="bitsandbytes", model=DEMO_MODEL)
GPTQ = Gptq(label="GPTQ", engine="gptq", model=DEMO_MODEL, quantize=Quantize(group_size=64))
GGUF = Transformers(label="GGUF", engine="transformers", model=DEMO_MODEL, gguf_file="tiny.gguf")
ALL = ["dequantize", "calibrate", "quantize gptq"]


@dataclass(frozen=True)
class Bench:
    """A builder with the environment that most tests here need."""

    index: TinyIndex
    jobs: Jobs
    folder: Path

    def builder(self, mode: str = "whole") -> CheckpointBuilder:
        """A new one, as another start of quantchat has it, on the same cache."""
        return CheckpointBuilder(
            self.jobs.start, self.folder, pip=self.index.pip(mode), wheel=self.index.wheel
        )

    def artifacts(self) -> list[str]:
        """What is in the cache, by slug and number of hex digits."""
        return sorted(f.name.rpartition("-")[0] for f in self.folder.glob("[!.]*"))

    def parts(self) -> list[Path]:
        return list((self.folder / ".parts").glob("*"))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("QUANTCHAT_LOGS", str(tmp_path / "logs"))
    return Bench(TinyIndex(tmp_path / "index"), Jobs(tmp_path), tmp_path / "cache")


class Ear(list[Progress]):
    """Listens, and lets a test wait for what it hears."""

    def __call__(self, progress: Progress) -> None:
        self.append(progress)

    @property
    def stages(self) -> list[str]:
        """The stages heard of, each run of them once."""
        return [p.stage for i, p in enumerate(self) if not i or p.stage != self[i - 1].stage]


async def cancelled(task: asyncio.Task[PreparedModel]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_demo_from_nothing(bench: Bench) -> None:
    ear = Ear()
    prepared = await bench.builder().prepare(GPTQ, ear)
    assert ear.stages == [
        "fetching the model",
        "dequantizing",
        "writing calibration chats",
        "quantizing layer",
    ]
    assert Progress("quantizing layer", 1, 2, "half") in ear
    assert "dequantized from a Q4_1" in prepared.note
    made = Path(prepared.model)
    assert (made / "model.safetensors").read_bytes() == b"int4" * 16
    about = json.loads((made / "made.json").read_text())
    assert about["result"] == {
        "layers": 2,
        "losses": [],
        "calibration": {"samples": 32, "tokens": 5000, "sha256": "ab" * 32, "widest": 0},
        "resumed": 0,
    }
    assert about["inputs"]["group_size"] == 64
    assert set(about["versions"]) >= {"torch", "gptqmodel"}
    assert about["files"]["model.safetensors"]["bytes"] == 64
    # Each stage got what the one before it made.
    jobs = dict(bench.jobs.begun)
    assert Path(jobs["dequantize"].source).parent == bench.folder
    assert jobs["dequantize"].gguf_file == "Tiny-1M-Instruct.Q4_1.gguf"
    assert jobs["quantize gptq"].load == jobs["calibrate"].load
    assert jobs["quantize gptq"].calibration.endswith("/chats.jsonl")
    prompts = jobs["calibrate"].prompts
    assert len(set(prompts)) == len(prompts) == 32
    assert bench.parts() == []
    assert len(bench.jobs.closed) == len(ALL)


async def test_all_is_private(bench: Bench) -> None:
    await bench.builder().prepare(GPTQ, Ear())
    for path in [bench.folder, *bench.folder.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


async def test_other_variants_need_less(bench: Bench) -> None:
    builder = bench.builder()
    gguf = await builder.prepare(GGUF, Ear())
    assert (Path(gguf.model) / "Tiny-1M-Instruct.Q4_1.gguf").is_file()
    assert bench.jobs.names() == []
    nf4 = await builder.prepare(NF4, Ear())
    assert (Path(nf4.model) / "model.safetensors").read_bytes() == b"bf16" * 64
    assert bench.jobs.names() == ["dequantize"]


async def test_the_second_start_makes_nothing(bench: Bench) -> None:
    first = await bench.builder().prepare(GPTQ, Ear())

    async def never(place: Place) -> Worker:
        raise AssertionError(f"started {place}")

    ear = Ear()
    second = CheckpointBuilder(never, bench.folder, pip=("/nowhere/pip",), wheel=bench.index.wheel)
    assert await second.prepare(GPTQ, ear) == first
    assert await second.prepare(NF4, ear)
    assert ear == []
    assert len(bench.index.calls) == 1


async def test_two_variants_share_a_stage(bench: Bench) -> None:
    gate = bench.jobs.gates["dequantize"] = asyncio.Event()
    builder, early, late = bench.builder(), Ear(), Ear()
    gptq = asyncio.ensure_future(builder.prepare(GPTQ, early))
    await until(lambda: bench.jobs.halfway)
    nf4 = asyncio.ensure_future(builder.prepare(NF4, late))
    await until(lambda: late)
    assert late[0] == Progress("dequantizing", 1, 2, "half")  # at once, without waiting for more
    gate.set()
    base = await nf4
    await gptq
    assert bench.jobs.names() == ALL
    assert len(bench.index.calls) == 1
    assert dict(bench.jobs.begun)["calibrate"].load.model == base.model


async def test_one_leaves_and_the_other_goes_on(bench: Bench) -> None:
    gate = bench.jobs.gates["dequantize"] = asyncio.Event()
    builder = bench.builder()
    gptq = asyncio.ensure_future(builder.prepare(GPTQ, Ear()))
    nf4 = asyncio.ensure_future(builder.prepare(NF4, Ear()))
    await until(lambda: bench.jobs.halfway)
    await cancelled(gptq)
    assert bench.jobs.closed == []
    gate.set()
    assert (Path((await nf4).model) / "model.safetensors").is_file()
    assert bench.jobs.names() == ["dequantize"]


async def test_when_all_leave_the_stage_ends_and_what_is_finished_stays(bench: Bench) -> None:
    gate = bench.jobs.gates["calibrate"] = asyncio.Event()
    builder = bench.builder()
    gptq = asyncio.ensure_future(builder.prepare(GPTQ, Ear()))
    again = asyncio.ensure_future(builder.prepare(GPTQ, Ear()))
    await until(lambda: "calibrate" in bench.jobs.halfway)
    await cancelled(gptq)
    await cancelled(again)
    assert len(bench.jobs.closed) == 2  # the one that had finished, and the one that had not
    assert bench.parts() == []
    assert bench.artifacts() == ["tiny-1m-instruct", "tiny-model"]
    gate.set()
    await builder.prepare(GPTQ, Ear())
    assert bench.jobs.names() == ["dequantize", "calibrate", "calibrate", "quantize gptq"]


async def test_who_comes_while_a_stage_is_being_cancelled_gets_a_new_one(bench: Bench) -> None:
    gate = bench.jobs.gates["dequantize"] = asyncio.Event()
    builder = bench.builder()
    first = asyncio.ensure_future(builder.prepare(NF4, Ear()))
    await until(lambda: bench.jobs.halfway)
    first.cancel()
    await asyncio.sleep(0)  # the cancellation is on its way
    gate.set()
    assert await builder.prepare(NF4, Ear())
    assert bench.jobs.names() == ["dequantize", "dequantize"]


async def test_a_failure_is_told_to_all_and_can_be_tried_again(bench: Bench) -> None:
    bench.jobs.fails["dequantize"] = Failed("internal", "the file is odd", "look again")
    builder = bench.builder()
    outcomes = await asyncio.gather(
        builder.prepare(GPTQ, Ear()), builder.prepare(NF4, Ear()), return_exceptions=True
    )
    for outcome in outcomes:
        assert isinstance(outcome, JobFailed)
        assert outcome.failure.reason == "the file is odd"
        assert outcome.failure.hint == (
            f"look again; look at the worker's log {bench.jobs.folder / 'dequantize.log'}"
        )
    assert bench.parts() == []
    bench.jobs.fails.clear()
    assert await builder.prepare(NF4, Ear())


@pytest.mark.parametrize(("status", "kind"), [(-9, "out_of_memory"), (1, "worker_ended")])
async def test_a_worker_that_dies(bench: Bench, status: int, kind: str) -> None:
    bench.jobs.dies["dequantize"] = status
    with pytest.raises(JobFailed) as caught:
        await bench.builder().prepare(NF4, Ear())
    assert caught.value.failure.kind == kind
    assert "dequantize.log" in caught.value.failure.hint
    assert bench.artifacts() == ["tiny-model"]


async def test_a_full_disk_is_told_as_such(bench: Bench) -> None:
    reason = "SafetensorError: I/O error: No space left on device (os error 28)"
    bench.jobs.fails["dequantize"] = Failed("internal", reason)
    with pytest.raises(JobFailed) as caught:
        await bench.builder().prepare(NF4, Ear())
    assert caught.value.failure.kind == "no_space"
    assert "QUANTCHAT_CACHE" in caught.value.failure.hint


async def test_room_is_looked_for_before(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.builder().prepare(GGUF, Ear())
    real = shutil.disk_usage(bench.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real._replace(free=2000))
    with pytest.raises(JobFailed) as caught:
        await bench.builder().prepare(NF4, Ear())
    assert caught.value.failure.kind == "no_space"
    assert (caught.value.failure.needed, caught.value.failure.free) == (5 * 2004, 2000)
    assert bench.jobs.names() == []


@pytest.mark.parametrize("place", ["", ".parts", ".locks"])
async def test_a_cache_that_cannot_be_written(bench: Bench, place: str) -> None:
    blocked = bench.folder / place
    blocked.parent.mkdir(exist_ok=True)
    blocked.write_text("a file where a folder should be")
    with pytest.raises(JobFailed) as caught:
        await bench.builder().prepare(NF4, Ear())
    assert caught.value.failure.kind == "cannot_write"
    assert str(bench.folder) in caught.value.failure.reason
    assert "QUANTCHAT_CACHE" in caught.value.failure.hint
    assert bench.index.calls == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda made: (made / "model.safetensors").write_bytes(b"bf"),
        lambda made: (made / "model.safetensors").unlink(),
        lambda made: (made / "made.json").unlink(),
        lambda made: (made / "made.json").write_text('{"schema": 1'),
        lambda made: (made / "made.json").write_text("[]"),
        lambda made: (made / "made.json").write_text(
            (made / "made.json").read_text().replace('"bytes"', '"octets"')
        ),
        lambda made: (made / "made.json").write_text(
            (made / "made.json").read_text().replace('"schema": 1', '"schema": 0')
        ),
    ],
)
async def test_a_damaged_artifact_is_made_again(
    bench: Bench, damage: Callable[[Path], object]
) -> None:
    made = Path((await bench.builder().prepare(NF4, Ear())).model)
    damage(made)
    assert Path((await bench.builder().prepare(NF4, Ear())).model) == made
    assert (made / "model.safetensors").read_bytes() == b"bf16" * 64
    assert bench.jobs.names() == ["dequantize", "dequantize"]
    assert bench.parts() == []


# ---------------------------------------------------------------- what is whose


async def test_what_goes_in_makes_the_name(bench: Bench) -> None:
    builder = bench.builder()
    await builder.prepare(GPTQ, Ear())

    async def again(**settings: object) -> list[str]:
        before = len(bench.jobs.begun)
        quantize = Quantize.model_validate({"group_size": 64, **settings})
        await builder.prepare(GPTQ.model_copy(update={"quantize": quantize}), Ear())
        return bench.jobs.names()[before:]

    assert await again() == []
    # GPTQ's settings leave the chats as they are; the chats' settings change both.
    for settings in (
        {"bits": 3},
        {"desc_act": True},
        {"act_group_aware": False},
        {"sym": False},
        {"damp_percent": 0.1},
        {"true_sequential": False},
    ):
        assert await again(**settings) == ["quantize gptq"]
    # One order or the other: with act-order the other has no say.
    assert await again(desc_act=True, act_group_aware=False) == []
    for settings in ({"samples": 8}, {"sample_tokens": 64}, {"seed": 1}):
        assert await again(**settings) == ["calibrate", "quantize gptq"]


async def test_a_folder_of_the_users(bench: Bench, tmp_path: Path) -> None:
    model = tmp_path / "My Model!"
    model.mkdir()
    (model / "config.json").write_text("{}")
    spec = GPTQ.model_copy(update={"model": str(model), "trust_remote_code": True})
    builder = bench.builder()
    first = await builder.prepare(spec, Ear())
    assert bench.jobs.names() == ["calibrate", "quantize gptq"]
    assert Path(first.model).name.startswith("my-model-gptq-4bit-g64-")
    assert first.note == ""
    for _, job in bench.jobs.begun:
        assert (job.load.model, job.load.revision) == (str(model), None)
        assert job.load.trust_remote_code is True
    # It is known again, and what has changed is not taken for it.
    assert await builder.prepare(spec, Ear()) == first
    (model / "config.json").write_text("[]")
    assert await builder.prepare(spec, Ear()) != first


async def test_an_id_of_the_hub(bench: Bench) -> None:
    spec = GPTQ.model_copy(update={"model": "org/Name-7B@v1"})
    made = Path((await bench.builder().prepare(spec, Ear())).model)
    assert made.name.startswith("name-7b-gptq-4bit-g64-")
    (_, job), *_ = bench.jobs.begun
    assert (job.load.model, job.load.revision) == ("org/Name-7B", "v1")
    assert json.loads((made / "made.json").read_text())["inputs"]["model"] == "org/Name-7B@v1"


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("org/name", PreparedModel("org/name")),
        ("org/name@refs/pr/1", PreparedModel("org/name", "refs/pr/1")),
        ("gpt2", PreparedModel("gpt2")),
    ],
)
async def test_others_are_left_as_they_are(
    bench: Bench, model: str, expected: PreparedModel
) -> None:
    for spec in (NF4, GPTQ.model_copy(update={"quantize": None})):
        spec = spec.model_copy(update={"model": model})
        assert await bench.builder().prepare(spec, Ear()) == expected
    assert not bench.folder.exists()


async def test_a_folder_is_named_whole(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    spec = NF4.model_copy(update={"model": "./model"})
    assert await bench.builder().prepare(spec, Ear()) == PreparedModel(str(tmp_path / "model"))


@pytest.mark.parametrize(
    ("model", "what"),
    [
        ("./nowhere", "no such folder"),
        ("/etc/passwd", "is a file"),
        ("~nobody-here/model", "home"),
        ("/" + "x" * 5000, "too long"),
    ],
)
async def test_a_folder_that_is_none(bench: Bench, model: str, what: str) -> None:
    with pytest.raises(UserError, match=what) as caught:
        await bench.builder().prepare(NF4.model_copy(update={"model": model}), Ear())
    assert caught.value.hint
    assert caught.value.where == model


async def test_the_demos_model_is_no_gptq_checkpoint(bench: Bench) -> None:
    with pytest.raises(UserError, match="quantize"):
        await bench.builder().prepare(GPTQ.model_copy(update={"quantize": None}), Ear())
