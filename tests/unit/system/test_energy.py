"""Energy per token, and foreign processes on the GPU: measured, or "–" where they cannot be."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pynvml
import pytest

from fakes.fake_nvml import FakeGpu, FakeNvml, nvml_error
from fakes.printed_document import printed
from fakes.scripted_worker import Script, ScriptedProvider, starter
from quantchat.features.measure import tables as report
from quantchat.measuring.measurement import Measurement
from quantchat.measuring.record import record_measurement
from quantchat.measuring.rounds import Plan, Task
from quantchat.profile.model import Profile
from quantchat.report.snapshot import turn_table
from quantchat.session.comparison import Comparison
from quantchat.session.live_variant import State
from quantchat.snapshot import store
from quantchat.snapshot.schema import Snapshot
from quantchat.system.energy import Energy
from quantchat.system.gpus import Gpus
from quantchat.system.sampler import DeviceSampler
from quantchat.wire.messages import Generate
from quantchat.wire.variant import STARTED_SERVER

WORDS = "one two three four five six seven eight nine ten"


def sampler_of(*gpus: FakeGpu, foreign: frozenset[int] = frozenset()) -> DeviceSampler:
    nvml = FakeNvml(*gpus)
    return DeviceSampler(Gpus(lambda: nvml, foreign.__contains__))


@pytest.fixture(autouse=True)
def _all_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


# ------------------------------------------------------------ the counter


def test_the_counter_of_the_gpu_that_cuda_means(monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = sampler_of(FakeGpu(energy_mj=5), FakeGpu(uuid="GPU-1", energy_mj=7))
    assert [sampler.energy_mj(device) for device in ("cuda:0", "cuda:1", "cuda")] == [5, 7, 5]
    assert sampler.energy_mj("cuda:0", "cuda:1") == 12
    assert sampler.energy_mj("cuda:2") is None
    assert sampler.energy_mj("cuda:0", "cuda:2") is None
    assert sampler.energy_mj() is None
    assert sampler.energy_mj("cpu") is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert sampler.energy_mj("cuda:0") == 7


def test_a_counter_that_is_not_there_or_not_ones_own_is_none() -> None:
    name = "nvmlDeviceGetTotalEnergyConsumption"
    refused = FakeGpu(energy_mj=5, refused={name: nvml_error("NOT_SUPPORTED")})
    assert sampler_of(refused).energy_mj("cuda:0") is None
    mig = FakeGpu(energy_mj=5, instances=[FakeGpu(uuid="MIG-1", energy_mj=5)])
    assert sampler_of(mig).energy_mj("cuda:0") is None
    no_driver = FakeNvml(init_error=nvml_error("LIBRARY_NOT_FOUND"))
    assert DeviceSampler(Gpus(lambda: no_driver)).energy_mj("cuda:0") is None


@pytest.mark.parametrize(
    ("energy", "tokens", "each"),
    [
        (Energy(30.0, 1.0), 60, 0.5),
        (Energy(30.0, 0.999), 60, None),  # the counter moves in steps: too short to tell
        (Energy(30.0, 5.0), 0, None),
    ],
)
def test_joules_for_a_token(energy: Energy, tokens: int, each: float | None) -> None:
    assert energy.per_token(tokens) == each


# ------------------------------------------------------------ in a measurement


class Machine:
    """A GPU whose counter and clock go on while answers are given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gpu = FakeGpu(energy_mj=10**9)
        self.now = 100.0
        monkeypatch.setattr("quantchat.measuring.measurement.monotonic", lambda: self.now)

    def side(self, millijoules: int, seconds: float, device: str = "cuda:0") -> Script:
        def answer(request: Generate) -> str:
            self.gpu.energy_mj += millijoules
            self.now += seconds
            return WORDS

        return Script(answer=answer, device=device)


async def measured(
    folder: Path, sampler: DeviceSampler, plan: Plan, wish: str = "auto", /, **scripts: Script
) -> Snapshot:
    common = {"engine": "bitsandbytes", "model": "m", "device": wish}
    variants = [{"label": label, **common} for label in scripts]
    profile = Profile.model_validate({"name": "test", "variants": variants})
    comparison = Comparison(
        profile, provider=ScriptedProvider(scripts), start=starter(scripts, folder)
    )
    comparison.open()
    while not all(side.state is State.READY for side in comparison.sides):
        await asyncio.sleep(0)
    measurement = Measurement(comparison, plan, sampler)
    try:
        await measurement.run()
        return record_measurement(comparison, sampler, measurement)
    finally:
        await comparison.close()


PLAN = Plan((Task("one"), Task("two"), Task("three")), rounds=2, warmup=1)


def drawn(snapshot: Snapshot, folder: Path) -> str:
    return printed([*report.blocks(snapshot), turn_table(snapshot.turns[0])], 140)


async def test_each_answer_has_its_own_energy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch)
    sides = {"A": machine.side(30_000, 2.0), "B": machine.side(15_000, 1.5)}
    snapshot = await measured(tmp_path, sampler_of(machine.gpu), PLAN, **sides)
    for turn in snapshot.turns:
        energies = [answer.energy for answer in turn.answers]
        assert energies == [Energy(30.0, 2.0), Energy(15.0, 1.5)]
    text = drawn(snapshot, tmp_path)
    (row,) = [
        line.split() for line in text.splitlines() if "J/token" in line and "over" not in line
    ]
    assert row[:6] == ["energy", "3.0", "J/token", "1.5", "J/token", "0.500"]
    assert "3.0 J/token (30.0 J over 2.0 s)" in text
    assert store.load(store.save(snapshot, tmp_path / "saved")) == snapshot


async def test_a_short_answer_has_energy_and_no_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch)
    sides = {"A": machine.side(300, 0.2), "B": machine.side(150, 0.2)}
    text = drawn(await measured(tmp_path, sampler_of(machine.gpu), PLAN, **sides), tmp_path)
    assert "J/token" not in text
    assert "– (0.30 J over 0.2 s)" in text


@pytest.mark.parametrize("case", ["together", "cpu", "reset"])
async def test_what_is_not_one_variants_own_is_not_given(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch)
    device = "cpu" if case == "cpu" else "cuda:0"
    joules = -5000 if case == "reset" else 5000  # the driver was loaded anew
    sides = {"A": machine.side(joules, 2.0, device), "B": machine.side(joules, 2.0, device)}
    plan = replace(PLAN, order="together") if case == "together" else PLAN
    snapshot = await measured(tmp_path, sampler_of(machine.gpu), plan, **sides)
    assert all(answer.energy is None for turn in snapshot.turns for answer in turn.answers)
    assert "J/token" not in drawn(snapshot, tmp_path)


# ------------------------------------------------------------ others on the GPU

OWN = 2**30 + 1
"""Process id of each scripted worker."""


@pytest.mark.parametrize(
    ("listed", "other", "flag"),
    [
        ([], "cpu", None),
        ([OWN], "cpu", None),
        ([OWN, 77], "cpu", "GPU 0: 1 other process used the GPU"),
        ([OWN, 77, 78], "cpu", "GPU 0: 2 other processes used the GPU"),
        # In a container the ids are the host's: as many of them as run here are the workers'.
        ([901, 902], "cuda:0", None),
        ([901, 902, 903], "cuda:0", "GPU 0: 1 other process used the GPU"),
        ([901, 902], "cpu", "GPU 0: 1 other process used the GPU"),
        ([901, 902], "cuda:1", "GPU 0: 1 other process used the GPU"),
        # By `auto` it asked the GPU that it then passed over, which leaves a context there.
        ([901, 902], "auto", None),
        ([901, 902, 903], "auto", "GPU 0: 1 other process used the GPU"),
    ],
)
async def test_others_on_the_gpu_are_flagged(
    listed: list[int], other: str, flag: str | None, tmp_path: Path
) -> None:
    gpu = FakeGpu(processes=[(pid, None) for pid in listed])
    sampler = sampler_of(gpu, FakeGpu(uuid="GPU-1"), foreign=frozenset({901, 902, 903}))
    wish = "auto" if other == "auto" else "cuda"
    sides = {"A": Script(device="cuda:0"), "B": Script(device=other.replace("auto", "cuda:1"))}
    snapshot = await measured(tmp_path, sampler, PLAN, wish, **sides)
    assert snapshot.measurement is not None
    about_others = [line for line in snapshot.measurement.flags if "other process" in line]
    assert about_others == ([flag] if flag else [])
    assert snapshot.measurement.samples[0].gpus[0].processes == sorted(listed)


def test_ones_own_process_is_no_stranger_where_it_does_not_run() -> None:
    sampler = sampler_of(FakeGpu(processes=[(1, None), (2, None), (77, None)]))
    (gpu,) = sampler.sample().gpus
    assert sampler.foreign_processes(gpu, [1, 2], own_count=1) == 1


async def test_who_comes_for_a_round_is_flagged_too(tmp_path: Path) -> None:
    gpu = FakeGpu()
    rounds = 0

    def answer(request: Generate) -> str:
        nonlocal rounds
        rounds += 1
        gpu.processes = [(77, None)] if rounds in (4, 5, 6, 7) else []
        return WORDS

    script = Script(answer=answer, device="cuda:0")
    snapshot = await measured(tmp_path, sampler_of(gpu), PLAN, A=script, B=Script())
    assert snapshot.measurement is not None
    assert "GPU 0: 1 other process used the GPU" in snapshot.measurement.flags
    assert snapshot.measurement.samples[-1].gpus[0].processes == [77]


async def busy(folder: Path, *devices: str) -> list[str]:
    """The flags of a pair on `devices`, where another's work begins on every GPU."""
    gpus = [FakeGpu(uuid=f"GPU-{index}", clock_mhz=300) for index in range(3)]

    def answer(request: Generate) -> str:
        for gpu in gpus:
            gpu.clock_mhz, gpu.temperature_c, gpu.processes = 1980, 70, [(77, None)]
            gpu.events = pynvml.nvmlClocksEventReasonSwPowerCap
        return WORDS

    scripts = [Script(answer=answer, device=device) for device in devices]
    sides = dict(zip("AB", scripts, strict=True))
    snapshot = await measured(folder, sampler_of(*gpus), replace(PLAN, warmup=0), **sides)
    assert snapshot.measurement is not None
    assert len(snapshot.measurement.samples[0].gpus) == 3  # what there is, is kept all the same
    return [line for line in snapshot.measurement.flags if line.startswith("GPU")]


async def test_what_others_do_on_other_gpus_is_no_doubt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def all_of(number: int) -> list[str]:
        return [
            f"GPU {number}: SM clock between 300 and 1980 MHz",
            f"GPU {number}: temperature between 41 and 70 °C",
            f"GPU {number}: clocks throttled by power cap",
        ]

    other = "other process used the GPU"
    assert await busy(tmp_path, "cpu", "cpu") == []
    assert await busy(tmp_path, "cuda:0", "cpu") == [*all_of(0), f"GPU 0: 1 {other}"]
    both = [*all_of(0), *all_of(2), f"GPU 0: 1 {other}", f"GPU 2: 1 {other}"]
    assert await busy(tmp_path, "cuda:0", "cuda:2") == both
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert await busy(tmp_path, "cuda:0", "cuda:0") == [*all_of(1), f"GPU 1: 1 {other}"]


async def test_the_gpus_of_a_server_that_was_started_here_are_looked_at(tmp_path: Path) -> None:
    """It is told from others by its processes, and may be on any GPU."""
    first, second = FakeGpu(), FakeGpu(uuid="GPU-1", processes=[(OWN, None)])

    def answer(request: Generate) -> str:
        first.events = second.events = pynvml.nvmlClocksEventReasonSwPowerCap
        second.processes = [(OWN, None), (77, None)]
        return WORDS

    sides = {"A": Script(answer=answer, device=STARTED_SERVER), "B": Script(answer=answer)}
    snapshot = await measured(tmp_path, sampler_of(first, second), PLAN, **sides)
    assert snapshot.measurement is not None
    assert [line for line in snapshot.measurement.flags if line.startswith("GPU")] == [
        "GPU 1: clocks throttled by power cap",
        "GPU 1: 1 other process used the GPU",
    ]


def test_what_a_process_has_started_is_of_its_family() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert {os.getpid(), child.pid} <= sampler_of().process_tree(os.getpid())
        child.communicate(b"\n")
    gone = child.pid
    assert sampler_of().process_tree(gone) == {gone}
