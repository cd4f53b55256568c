"""The benchmark of Llama's shapes with scripted workers: failures, stopping and continuing."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from fakes.fake_nvml import GIB, FakeGpu, FakeNvml, nvml_error
from fakes.scripted_worker import Script, ScriptedWorker, model_info
from quantchat.host.worker_process import Place
from quantchat.system.gpus import Gpus
from quantchat.system.sampler import DeviceSampler
from quantchat.wire.messages import Failed, Generate, LoadModel
from quantchat.wire.protocol import Command

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
GPTQ, NF4 = "GPTQ 4-bit, automatic", "NF4"
OUT_OF_MEMORY = Failed("out_of_memory", "the GPU's memory is full", "use less context")


class Benchmark:
    """The benchmark over workers that only play a model."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.workers: list[Played] = []
        self.asked: list[tuple[str, str, int]] = []
        """Label, mode and context of each answer."""
        self.nvml = FakeNvml(init_error=nvml_error("DRIVER_NOT_LOADED"))
        self.before: Callable[[Played, Command], None] = lambda worker, command: None
        self._monkeypatch = monkeypatch
        monkeypatch.syspath_prepend(str(BENCHMARKS))
        bandwidth = importlib.import_module("bandwidth")
        self.module = importlib.import_module("llama7b.__main__")
        monkeypatch.setattr(importlib.import_module("driving"), "start_worker", self._start)
        monkeypatch.setattr(self.module, "bandwidth", lambda *_: bandwidth.Bandwidth(1e9, None))
        monkeypatch.setattr(self.module, "DeviceSampler", self._sampler)

    def _sampler(self) -> DeviceSampler:
        return DeviceSampler(Gpus(lambda: self.nvml, lambda pid: False))

    async def _start(self, place: Place) -> Played:
        self.workers.append(Played(self, place.label))
        return self.workers[-1]

    def run(self, *options: str) -> int:
        results = ("--results", str(self.folder / "results"), "--folder", str(self.folder / "made"))
        given = ["llama7b", "--shape", "small", "--rounds", "1", "--tokens", "4"]
        self._monkeypatch.setattr(sys, "argv", [*given, *results, *options])
        status: int = self.module.main()
        return status

    @property
    def result(self) -> dict[str, Any]:
        (file,) = (self.folder / "results").iterdir()
        found: dict[str, Any] = json.loads(file.read_text())
        return found


class Played(ScriptedWorker):
    def __init__(self, benchmark: Benchmark, label: str) -> None:
        self.label, self.mode = label, ""
        self.script = Script(answer=lambda request: "one two three four five")
        self._benchmark = benchmark
        super().__init__(self.script, benchmark.folder / "log", 2**30)

    def send(self, command: Command) -> None:
        if isinstance(command, LoadModel):
            self.mode = command.decode
            self.script.model_info = replace(model_info(), decode=command.decode)
            self.script.token_ms = {"generate": 20.0, "eager": 5.0}.get(self.mode, 10.0)
        if isinstance(command, Generate):
            self._benchmark.asked.append((self.label, self.mode, command.prompt_tokens))
        self._benchmark.before(self, command)
        super().send(command)


@pytest.fixture
def benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Benchmark:
    return Benchmark(tmp_path, monkeypatch)


def options(*labels: str, contexts: tuple[int, ...] = (128,), modes: str = "generate eager") -> Any:
    named = [part for label in labels for part in ("--variant", label)]
    named += [part for mode in modes.split() for part in ("--mode", mode)]
    return named + [part for context in contexts for part in ("--context", str(context))]


def test_a_context_that_fails_leaves_the_others_their_figures(benchmark: Benchmark) -> None:
    def full(worker: Played, command: Command) -> None:
        fails = worker.mode == "eager" and getattr(command, "prompt_tokens", 0) == 512
        worker.script.answer_fails = OUT_OF_MEMORY if fails else None

    benchmark.before = full
    assert benchmark.run(*options(NF4, contexts=(128, 512, 2048)), "--no-pair") == 0
    modes = benchmark.result["variants"][NF4]["modes"]
    assert modes["eager"]["contexts"]["512"] == {"not_run": OUT_OF_MEMORY.reason, "run": 0}
    for context in ("128", "2048"):
        assert modes["eager"]["contexts"][context]["ratio"] == [4.0]
    assert all(worker.script.closed for worker in benchmark.workers)


def test_a_mode_or_a_side_that_fails_is_kept_with_its_reason(benchmark: Benchmark) -> None:
    def fail(worker: Played, command: Command) -> None:
        if isinstance(command, LoadModel) and worker.mode == "compile":
            worker.script.loading_fails = Failed("unsupported", f"no {command.model}", "none")
        if isinstance(command, LoadModel) and worker.label == "FP4":
            worker.script.dies_loading = -9

    benchmark.before = fail
    assert benchmark.run(*options(NF4, "FP4", modes="compile eager")) == 0
    variants = benchmark.result["variants"]
    assert variants[NF4]["modes"]["compile"]["not_run"] == "no the checkpoint; none"
    assert variants[NF4]["modes"]["eager"]["contexts"]["128"]["tok_s"] == [200.0]
    assert variants["FP4"]["not_run"] == "the worker was killed (signal 9)"
    assert benchmark.result["pair"]["not_run"] == "no GPTQ 4-bit was measured at 128"


def test_the_pair_runs_in_the_modes_it_was_chosen_by(benchmark: Benchmark) -> None:
    assert benchmark.run(*options(GPTQ, NF4)) == 0
    pair = benchmark.result["pair"]
    assert pair["decode"] == {GPTQ: "eager", NF4: "eager"}
    assert pair["together"][NF4] == [200.0] * 4
    assert [worker.mode for worker in benchmark.workers[-2:]] == ["eager", "eager"]


def test_a_side_that_fails_beside_the_other_costs_the_pair_alone(
    benchmark: Benchmark, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(worker: Played, command: Command) -> None:
        together = len(benchmark.workers) == 6 and getattr(command, "turn", 0) % 2
        worker.script.answer_fails = OUT_OF_MEMORY if together else None

    benchmark.before = full
    assert benchmark.run(*options(GPTQ, NF4)) == 0
    assert benchmark.result["pair"]["not_run"] == OUT_OF_MEMORY.reason
    assert f"| {NF4} |" in capsys.readouterr().out
    assert all(worker.script.closed for worker in benchmark.workers)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_was_measured_before_it_was_stopped_is_kept_and_gone_on_with(
    benchmark: Benchmark, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    def interrupt(worker: Played, command: Command) -> None:
        if (worker.label, worker.mode) == (NF4, "eager") and isinstance(command, Generate):
            os.kill(os.getpid(), number)

    benchmark.before = interrupt
    wanted = options(GPTQ, NF4)
    assert benchmark.run(*wanted) == 130
    assert "--missing continues" in (told := capsys.readouterr().out)
    assert f"| {NF4} | Linear4bit nf4, double quant | generate |" in told
    assert all(worker.script.closed for worker in benchmark.workers)
    before = benchmark.result["variants"]
    assert list(before[NF4]["modes"]) == ["generate"]

    benchmark.before = lambda worker, command: None
    benchmark.workers, benchmark.asked = [], []
    assert benchmark.run(*wanted, "--missing") == 0
    assert "writing" not in capsys.readouterr().out
    assert (worker := benchmark.workers[0]).label == NF4 and worker.mode == "generate"
    modes = benchmark.result["variants"][NF4]["modes"]
    assert modes["generate"] == before[NF4]["modes"]["generate"]
    assert modes["eager"]["contexts"]["128"]["run"] == benchmark.result["pair"]["run"] == 1
    assert benchmark.result["variants"][GPTQ] == before[GPTQ]

    benchmark.workers = []
    assert benchmark.run(*wanted, "--missing") == 0
    assert not benchmark.workers


def test_what_is_wanted_most_is_measured_first(benchmark: Benchmark) -> None:
    """Where nothing is named, which takes an hour; and `generate` beside it costs no answer."""

    def stopped(worker: Played, command: Command) -> None:
        if isinstance(command, LoadModel) and worker.mode == "compile":
            os.kill(os.getpid(), signal.SIGINT)

    labels = list(importlib.import_module("llama7b.variants").VARIANTS)
    benchmark.before = stopped
    benchmark.nvml = FakeNvml(FakeGpu(name="NVIDIA H200"))
    assert benchmark.run("--context", "128", "--context", "512", "--no-pair") == 130
    begun = [(worker.label, worker.mode) for worker in benchmark.workers]
    wanted = ["NF4", "bf16", "GPTQ 4-bit, Marlin", "NF4, double quant"]
    assert begun[:8] == [(label, mode) for label in wanted for mode in ("generate", "graph")]
    all_modes = ("generate", "graph", "eager")
    assert begun[8:-2] == [(label, mode) for label in labels for mode in all_modes]
    assert begun[-2:] == [("NF4", "generate"), ("NF4", "compile")]
    for label in wanted:
        modes = benchmark.result["variants"][label]["modes"]
        assert modes["graph"]["contexts"]["128"]["ratio"] == [2.0]
        assert modes["generate"]["contexts"]["128"]["tok_s"] == [50.0]
    assert benchmark.asked[16][1:] == ("generate", 128)


def test_what_generate_did_beside_another_mode_replaces_nothing(benchmark: Benchmark) -> None:
    assert benchmark.run(*options(NF4, modes="generate"), "--no-pair") == 0
    assert benchmark.run(*options(NF4, contexts=(128, 512), modes="eager"), "--no-pair") == 0
    contexts = benchmark.result["variants"][NF4]["modes"]["generate"]["contexts"]
    assert {context: one["run"] for context, one in contexts.items()} == {"128": 0, "512": 1}


def test_the_kept_command_measures_the_same_again(benchmark: Benchmark) -> None:
    asked = options(NF4, contexts=(24, 48), modes="eager")
    assert benchmark.run(*asked, "--threads", "1", "--no-pair") == 0
    assert benchmark.result["runs"][0]["command"] == (
        "python benchmarks/llama7b --shape small --rounds 1 --tokens 4 --threads 1 "
        "--variant NF4 --mode eager --context 24 --context 48 --no-pair"
    )


def test_a_gpu_has_its_own_file_and_its_own_contexts(
    benchmark: Benchmark, capsys: pytest.CaptureFixture[str]
) -> None:
    benchmark.nvml = FakeNvml(FakeGpu(name="NVIDIA H200", used=3 * GIB, total=3 * GIB + 10_000_000))
    assert (
        benchmark.run("--variant", NF4, "--variant", "bf16", "--mode", "generate", "--no-pair") == 0
    )
    (file,) = (benchmark.folder / "results").iterdir()
    assert file.name == "llama7b-small-nvidia-h200.json"
    assert benchmark.asked[::2] == [
        (label, "generate", context)
        for label in (NF4, "bf16")
        for context in (128, 512, 2048, 8192)
    ]
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "memory are free" in line)
    assert line == (
        "0.0 GB of the GPU's memory are free; 3.2 GB are in use: other programs slow this "
        "benchmark; loaded twice, beside generate, these may not fit: NF4, bf16"
    )


def test_the_table_shows_what_is_kept_of_each_device(
    benchmark: Benchmark, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match=r"there are no results of this benchmark"):
        benchmark.run("--table")
    asked = options(NF4, modes="generate")
    for gpu in ("NVIDIA H100", "NVIDIA H200"):
        benchmark.nvml = FakeNvml(FakeGpu(name=gpu))
        benchmark.run(*asked, "--no-pair")
    capsys.readouterr()
    assert benchmark.run("--table") == 0
    shown = capsys.readouterr().out
    assert "small on NVIDIA H100\n" in shown and "small on NVIDIA H200\n" in shown


def test_a_disk_that_is_too_full_is_told_before_anything_is_made(
    benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(benchmark.folder)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(SystemExit, match=r"the disk is too full: .* --folder"):
        benchmark.run(*options(NF4))
    assert not benchmark.workers and not list((benchmark.folder / "made").iterdir())


@pytest.mark.parametrize(
    ("option", "value"), [("--tokens", "1"), ("--rounds", "0"), ("--context", "x")]
)
def test_a_number_that_gives_no_figures_is_refused(
    benchmark: Benchmark, option: str, value: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        benchmark.run(option, value)
    assert ended.value.code == 2


@pytest.mark.parametrize("label", [GPTQ, "GPTQ 3-bit, automatic", NF4])
def test_the_size_of_a_checkpoint_is_known_before_it_is_made(
    benchmark: Benchmark, label: str
) -> None:
    checkpoints = importlib.import_module("llama7b.checkpoints")
    source = importlib.import_module("llama7b.variants").VARIANTS[label].source
    made = checkpoints.checkpoint(benchmark.folder, "small", source)
    total = 0
    for file in made.glob("*.safetensors"):
        with safe_open(file, framework="pt") as tensors:
            total += sum(tensors.get_tensor(name).nbytes for name in tensors.keys())  # noqa: SIM118
    shape = importlib.import_module("llama7b.shapes").SHAPES["small"]
    assert total == shape.size(source.bits, source.group)
