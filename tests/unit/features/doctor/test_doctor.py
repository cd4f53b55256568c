"""`quantchat doctor`: the checks, the conclusions from them, and their wording."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import os
import sys
from collections import namedtuple
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from fakes.fake_nvml import FakeGpu, FakeNvml, nvml_error
from fakes.printed_document import printed
from fakes.safe_line import is_clean
from fakes.scripted_jobs import Jobs
from quantchat.cli import main
from quantchat.features.doctor import inspection
from quantchat.features.doctor.diagnosis import problems, usable
from quantchat.features.doctor.inspection import Diagnosis, examine
from quantchat.features.doctor.system_info import Folder, Terminal
from quantchat.features.doctor.tables import blocks
from quantchat.host.worker_process import Place, Worker
from quantchat.system.gpus import Gpus
from quantchat.system.sampler import DeviceSampler
from quantchat.wire.jobs import (
    COMPILES,
    READY,
    UNUSABLE,
    BuildTools,
    CudaDevice,
    InspectKernelsResult,
    Kernel,
    KernelState,
    TorchInfo,
)
from quantchat.wire.messages import Failed


def kernel(
    library: str, name: str, state: KernelState = READY, detail: str = "", auto: bool = False
) -> Kernel:
    return Kernel(library, name, state, detail, auto)


WORKER = InspectKernelsResult(
    torch=TorchInfo(
        version="2.13.0",
        cuda="12.8",
        available=True,
        error="",
        devices=[CudaDevice("NVIDIA H100", "9.0")],
    ),
    tools=BuildTools(
        nvcc="/cuda/bin/nvcc",
        nvcc_release="12.8",
        lacking="",
        cxx="c++",
        ninja="ninja",
        triton="3.7",
    ),
    libraries={},
    kernels=[
        kernel("bitsandbytes", "nf4"),
        kernel("gptqmodel", "marlin", READY, "compiled before", auto=True),
        kernel("gptqmodel", "triton"),
    ],
)


def with_gpu() -> DeviceSampler:
    return DeviceSampler(Gpus(lambda: FakeNvml(FakeGpu()), lambda pid: False))


async def found(
    tmp_path: Path, worker: InspectKernelsResult = WORKER, sampler: DeviceSampler | None = None
) -> Diagnosis:
    jobs = Jobs(tmp_path, results={"inspect kernels": worker})
    diagnosis = await examine(sampler=sampler or with_gpu(), start=jobs.start)
    assert jobs.closed == ["inspect kernels"]
    return diagnosis


@pytest.fixture(autouse=True)
def _usable(own_folders: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.0")
    monkeypatch.setattr("quantchat.features.doctor.diagnosis.LITTLE_DISK", 0)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


# ------------------------------------------------------------ what is found


async def test_a_sound_machine(tmp_path: Path) -> None:
    diagnosis = await found(tmp_path)
    assert diagnosis.worker == WORKER
    assert diagnosis.device.cuda == "13.0"
    assert problems(diagnosis) == []
    assert usable(diagnosis)


async def test_the_worker_has_a_scratch_folder_that_goes(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path, results={"inspect kernels": WORKER})
    told: list[str] = []
    await examine(sampler=with_gpu(), start=jobs.start, report=told.append)
    ((title, job),) = jobs.begun
    assert title == "inspect kernels"
    assert not os.path.exists(job.workspace.scratch)  # noqa: ASYNC240, PTH110
    assert told == ["half"]


async def test_another_interpreter_is_the_workers_alone(tmp_path: Path) -> None:
    jobs = Jobs(tmp_path, results={"inspect kernels": WORKER})
    places: list[Place] = []

    async def start(place: Place) -> Worker:
        places.append(place)
        return await jobs.start(place)

    diagnosis = await examine("/venv/bin/python", sampler=with_gpu(), start=start)
    assert places[0].python == "/venv/bin/python"
    assert diagnosis.interpreter.executable == sys.executable


# ------------------------------------------------------------ what is made of it

SOUND = Terminal(True, "xterm-256color", "true colour", True, 120, 40, "", False)

Change = Callable[[Diagnosis], Diagnosis]


def of_worker(**changes: Any) -> Change:
    def change(found: Diagnosis) -> Diagnosis:
        assert found.worker is not None
        return replace(found, worker=replace(found.worker, **changes))

    return change


def of_terminal(**changes: Any) -> Change:
    return lambda found: replace(found, terminal=replace(SOUND, **changes))


def of_kernels(*kernels: Any) -> Change:
    return of_worker(kernels=[kernel("bitsandbytes", "nf4"), *kernels])


def of_folder(name: str, **changes: Any) -> Change:
    folder = Folder(name, "/some\x1b/where", True, True, 0, 10**12)
    return lambda found: replace(found, folders=[replace(folder, **changes)])


CPU_BUILD = TorchInfo(version="2.13.0+cpu", cuda="", available=False, error="", devices=[])


@pytest.mark.parametrize(
    ("change", "what", "cure", "grave"),
    [
        (
            lambda found: replace(found, worker=None, failure="it died"),
            "could not be tested in a worker process: it died",
            "torch",
            True,
        ),
        (
            of_worker(libraries={"gptqmodel": "ImportError: no"}),
            "gptqmodel cannot be imported: ImportError: no",
            "pip install --force-reinstall --no-deps gptqmodel",
            True,
        ),
        (
            of_worker(kernels=[kernel("bitsandbytes", "nf4", UNUSABLE, "no library")]),
            "no kernel of bitsandbytes runs on this machine: nf4: no library",
            "python -m pip check",
            True,
        ),
        (
            of_kernels(
                kernel("gptqmodel", "machete", COMPILES, "with nvcc 12.8", auto=True),
                kernel("gptqmodel", "triton"),
            ),
            "waits until machete is compiled (with nvcc 12.8)",
            'kernel = "triton"',
            False,
        ),
        (
            of_kernels(
                kernel("gptqmodel", "marlin", UNUSABLE, "must be compiled, and there is no nvcc"),
                kernel("gptqmodel", "triton", auto=True),
            ),
            "faster kernels of gptqmodel (marlin) cannot be compiled",
            "install NVIDIA's CUDA toolkit 12 (NVIDIA's compiler for CUDA 12.8)",
            False,
        ),
        (of_worker(torch=CPU_BUILD), "built without CUDA", "install torch with CUDA", False),
        (
            of_worker(torch=replace(CPU_BUILD, cuda="14.1")),
            "the NVIDIA driver supports CUDA 13.0, and torch is built for CUDA 14.1: no GPU can be",
            "install a torch for an older CUDA",
            True,
        ),
        (
            of_worker(torch=replace(CPU_BUILD, cuda="13.2", error="Error 803")),
            "built for CUDA 13.2 and finds no GPU; the driver supports CUDA 13.0: Error 803",
            "nvidia-smi",
            True,
        ),
        (
            lambda found: replace(found, libraries={"textual": "", "torch": "1"}),
            "not installed: textual",
            "pip install quantchat",
            False,
        ),
        (of_folder("logs", writable=False), "logs cannot be written", "QUANTCHAT_LOGS", True),
        (of_folder("snapshots", writable=False), "cannot be written", "QUANTCHAT_SNAP", False),
        (
            of_folder("checkpoints", free=-1),
            "GiB are free for checkpoints",
            "free disk space",
            False,
        ),
        (of_terminal(term="dumb"), 'TERM is "dumb"', "quantchat run", False),
        (of_terminal(colours="few"), "few colours", "COLORTERM=truecolor", False),
        (of_terminal(unicode=False), "not UTF-8", "LANG", False),
        (of_terminal(columns=60), "60 columns", "72 columns wide", False),
    ],
)
async def test_each_problem_has_its_cure(
    change: Change, what: str, cure: str, grave: bool, tmp_path: Path
) -> None:
    diagnosis = change(await found(tmp_path))
    (problem,) = problems(diagnosis)
    assert what in problem.what
    assert cure in problem.cure
    assert problem.grave is grave
    assert usable(diagnosis) is not grave
    text = shown(diagnosis, tmp_path)
    assert ("✗" in text) is grave
    assert ("not usable until" in text) is grave


async def test_hidden_gpus_are_the_users_wish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    change = of_worker(torch=replace(CPU_BUILD, cuda="13.0"))
    (problem,) = problems(change(await found(tmp_path)))
    assert (problem.what, problem.grave) == ("CUDA_VISIBLE_DEVICES hides every GPU", False)


async def test_a_pipe_is_no_bad_terminal(tmp_path: Path) -> None:
    diagnosis = replace(
        await found(tmp_path), terminal=Terminal(False, "", "none", False, 0, 0, "", False)
    )
    assert problems(diagnosis) == []


async def test_an_interpreter_that_is_not_tested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diagnosis = await found(tmp_path)
    version = namedtuple("version", "major minor micro")
    monkeypatch.setattr(sys, "version_info", version(3, 14, 0))
    (problem,) = problems(diagnosis)
    assert "3.10 to 3.13" in problem.cure


async def test_a_driver_that_is_broken_is_a_problem_and_none_is_not(tmp_path: Path) -> None:
    def without(error: str) -> DeviceSampler:
        return DeviceSampler(Gpus(lambda: FakeNvml(init_error=nvml_error(error))))

    assert problems(await found(tmp_path, sampler=without("LIBRARY_NOT_FOUND"))) == []
    (problem,) = problems(await found(tmp_path, sampler=without("LIB_RM_VERSION_MISMATCH")))
    assert "restart" in problem.what


@pytest.mark.parametrize("how", ["fails", "dies", "hangs", "no such interpreter"])
async def test_whatever_befalls_the_worker_is_a_finding(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = Jobs(tmp_path)
    start = jobs.start
    if how == "fails":
        reason = "the library torch is not installed for this interpreter"
        jobs.fails["inspect kernels"] = Failed("missing_library", reason, "install torch there")
    elif how == "dies":
        jobs.dies["inspect kernels"] = -11
    elif how == "hangs":
        jobs.gates["inspect kernels"] = asyncio.Event()
        monkeypatch.setattr(inspection, "PATIENCE_S", 0.01)
    else:
        from quantchat.host.worker_process import start_worker

        start = start_worker
    python = "/nowhere/python" if how == "no such interpreter" else None
    diagnosis = await examine(python, sampler=with_gpu(), start=start)
    expected = {
        "fails": "torch is not installed",
        "dies": "SIGSEGV",
        "hangs": "did not answer",
        "no such interpreter": "cannot run the interpreter",
    }
    assert expected[how] in diagnosis.failure
    assert diagnosis.worker is None
    assert not usable(diagnosis)
    assert "\n" not in problems(diagnosis)[0].what


# ------------------------------------------------------------ how it is said


def shown(diagnosis: Diagnosis, tmp_path: Path) -> str:
    return printed(blocks(diagnosis), 120)


async def test_what_a_profile_calls_each_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    gpus = FakeNvml(FakeGpu(), FakeGpu(uuid="GPU-1"))
    sampler = DeviceSampler(Gpus(lambda: gpus, lambda pid: False))
    text = shown(await found(tmp_path, sampler=sampler), tmp_path)
    assert "80.0 GiB free, hidden from CUDA" in text
    assert "80.0 GiB free, cuda:0" in text


async def test_as_tables(tmp_path: Path) -> None:
    diagnosis = await found(tmp_path)
    hostile = {**diagnosis.libraries, "\x1b[2Jevil": "[red]1"}
    text = shown(replace(diagnosis, libraries=hostile, terminal=SOUND), tmp_path)
    assert all(is_clean(line) for line in text.splitlines())
    assert "[red]1" in text
    for part in (
        "NVIDIA H100 80GB HBM3, 70.0 GiB of 80.0 GiB free, cuda:0",
        "580.95.05, CUDA 13.0",
        "2.13.0, built for CUDA 12.8, uses NVIDIA H100 (sm 9.0)",
        "nvcc 12.8, c++, ninja, Triton 3.7",
        "xterm-256color, 120 × 40, colours: true colour, Unicode",
        "chosen by auto, compiled before",
    ):
        assert part in text
    assert text.rstrip().endswith("usable")


@pytest.mark.parametrize("sound", [True, False])
def test_the_command(
    sound: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    jobs = Jobs(tmp_path, results={"inspect kernels": WORKER})
    if not sound:
        jobs.dies["inspect kernels"] = 1
    real = inspection.examine

    async def examined(python: str | None, *, report: Callable[[str], None]) -> Diagnosis:
        return await real(python, sampler=with_gpu(), start=jobs.start, report=report)

    monkeypatch.setattr(inspection, "examine", examined)
    assert main(["doctor", "--json"]) == (0 if sound else 1)
    out, err = capsys.readouterr()
    body = json.loads(out)
    assert err == ""
    assert body["usable"] is sound
    assert [problem["grave"] for problem in body["problems"]] == ([] if sound else [True])
    expected = asdict(WORKER)
    expected["tools"]["c++"] = expected["tools"].pop("cxx")
    assert body["worker"] == (expected if sound else {})
    assert main(["doctor"]) == (0 if sound else 1)
    assert ("not usable" in capsys.readouterr().out) is not sound
