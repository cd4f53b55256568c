"""The sampler: NVML's five cases, several GPUs, MIG, broken drivers, the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pynvml
import pytest

from fakes.fake_nvml import GIB, FakeGpu, FakeNvml, nvml_error
from quantchat.system import gpus as gpus_module
from quantchat.system import host as host_module
from quantchat.system.gpus import Gpus, ProcessReading
from quantchat.system.host import Host, ProcessTree, cpu_name
from quantchat.system.oom import oom_kills
from quantchat.system.process_memory import ProcessMemory, gpu_memory, with_process_memory
from quantchat.system.sampler import DeviceSampler
from quantchat.wire.variant import Ledger

WORKER = 4242

# 3 GiB of weights, 1 of KV cache, half of other tensors, half of slack: 5 reserved.
ON_GPU = Ledger(
    device="cuda:0",
    weights=3 * GIB,
    weights_by_dtype={"uint8": 3 * GIB},
    kv_cache=GIB,
    other_live=GIB // 2,
    slack=GIB // 2,
    non_torch=-1,
    process=-1,
    peak=6 * GIB,
    at_ns=1,
)
ON_CPU = replace(ON_GPU, device="cpu", other_live=-1, slack=-1)
RESERVED = 5 * GIB


def sampler_of(
    *gpus: FakeGpu, foreign_pids: frozenset[int] = frozenset()
) -> tuple[DeviceSampler, FakeNvml]:
    nvml = FakeNvml(*gpus)
    return DeviceSampler(Gpus(lambda: nvml, foreign_pids.__contains__)), nvml


# ------------------------------------------------------------ memory of one process


def test_case_1_nvml_works() -> None:
    sampler, _ = sampler_of(FakeGpu(processes=[(1, 7 * GIB), (WORKER, 6 * GIB)]))
    memory = sampler.process_memory(WORKER, ON_GPU)
    assert memory == ProcessMemory(6 * GIB, "nvml")


def test_case_2_the_pids_are_the_hosts() -> None:
    gpu = FakeGpu(processes=[(900_001, 6 * GIB)])
    sampler, _ = sampler_of(gpu, foreign_pids=frozenset({900_001}))
    memory = sampler.process_memory(WORKER, ON_GPU)
    assert memory == ProcessMemory(RESERVED, "torch", gpus_module.HOST_PIDS)


def test_case_2_an_equal_number_among_the_hosts_pids_is_not_believed() -> None:
    gpu = FakeGpu(processes=[(900_001, 6 * GIB), (WORKER, 20 * GIB)])
    sampler, _ = sampler_of(gpu, foreign_pids=frozenset({900_001}))
    assert sampler.process_memory(WORKER, ON_GPU).source == "torch"


def test_case_3_the_pid_matches_but_reads_0() -> None:
    sampler, _ = sampler_of(FakeGpu(processes=[(WORKER, 0)]))
    memory = sampler.process_memory(WORKER, ON_GPU)
    assert memory == ProcessMemory(RESERVED, "torch", gpus_module.ZERO)


def test_case_4_not_available() -> None:
    sampler, _ = sampler_of(FakeGpu(processes=[(WORKER, None)]))
    memory = sampler.process_memory(WORKER, ON_GPU)
    assert memory == ProcessMemory(RESERVED, "torch", gpus_module.NOT_AVAILABLE)


@pytest.mark.parametrize(
    "error",
    [
        nvml_error("NOT_SUPPORTED"),
        nvml_error("FUNCTION_NOT_FOUND"),
        nvml_error("NO_PERMISSION"),
        pynvml.NVMLLibraryMismatchError("the unversioned function is not there"),
    ],
)
def test_case_5_the_call_is_unsupported(error: Exception) -> None:
    gpu = FakeGpu(refused={"nvmlDeviceGetComputeRunningProcesses": error})
    sampler, _ = sampler_of(gpu)
    memory = sampler.process_memory(WORKER, ON_GPU)
    assert (memory.bytes, memory.source) == (RESERVED, "torch")
    assert memory.reason
    assert "\n" not in memory.reason


def test_a_process_that_is_not_listed_is_not_zero() -> None:
    sampler, _ = sampler_of(FakeGpu(processes=[]))
    memory = sampler.process_memory(WORKER, ON_GPU)
    assert memory == ProcessMemory(RESERVED, "torch", gpus_module.NOT_LISTED)


def test_a_worker_on_two_gpus_counts_on_both() -> None:
    sampler, _ = sampler_of(
        FakeGpu(processes=[(WORKER, 4 * GIB)]), FakeGpu(uuid="GPU-1", processes=[(WORKER, 3 * GIB)])
    )
    assert sampler.process_memory(WORKER, ON_GPU).bytes == 7 * GIB


def test_half_a_measurement_is_none() -> None:
    sampler, _ = sampler_of(
        FakeGpu(processes=[(WORKER, 6 * GIB)]), FakeGpu(uuid="GPU-1", processes=[(WORKER, 0)])
    )
    assert sampler.process_memory(WORKER, ON_GPU).source == "torch"


def test_less_than_the_worker_reserved_is_another_process() -> None:
    memory = gpu_memory(ProcessReading(GIB), ON_GPU)
    assert (memory.bytes, memory.source) == (RESERVED, "torch")
    assert "another process" in memory.reason


def test_where_the_worker_is_not_sure_either_nothing_is_known() -> None:
    unsure = replace(ON_GPU, slack=-1)
    refused = ProcessReading(None, "why")
    assert gpu_memory(refused, unsure) == ProcessMemory(None, "unknown", "why")
    assert gpu_memory(refused, ON_GPU).source == "torch"


def test_nvmls_total_completes_the_ledger() -> None:
    ledger = with_process_memory(ON_GPU, ProcessMemory(6 * GIB, "nvml"))
    assert ledger.process == 6 * GIB
    assert ledger.non_torch == GIB


def test_torchs_own_figure_is_not_the_process() -> None:
    assert with_process_memory(ON_GPU, ProcessMemory(RESERVED, "torch", "why")) == ON_GPU
    assert with_process_memory(ON_GPU, ProcessMemory(None, "unknown", "why")) == ON_GPU


def test_on_the_cpu_the_process_is_resident_memory() -> None:
    ledger = with_process_memory(ON_CPU, ProcessMemory(2 * GIB, "resident"))
    assert (ledger.process, ledger.non_torch) == (2 * GIB, -1)


# ------------------------------------------------------------ the GPUs


def test_a_gpu_in_full() -> None:
    events, processes = 0x01 | 0x04 | 0x20, [(9, GIB), (7, None), (9, 0)]
    sampler, _ = sampler_of(FakeGpu(events=events, processes=processes))
    sample = sampler.sample()
    (gpu,) = sample.gpus
    assert sample.driver == "580.95.05"
    assert sample.cuda == "13.0"
    assert sample.no_gpu == ""
    assert gpu.name == "NVIDIA H100 80GB HBM3"
    assert (gpu.memory_used, gpu.memory_total) == (10 * GIB, 80 * GIB)
    assert (gpu.utilisation, gpu.temperature_c, gpu.pstate) == (37, 41, "P0")
    assert (gpu.power_w, gpu.power_limit_w) == (312.5, 700.0)
    assert (gpu.sm_clock_mhz, gpu.memory_clock_mhz) == (1980, 1980)
    assert gpu.throttle == ["power cap", "software thermal slowdown"]
    assert (gpu.pcie_generation, gpu.pcie_width) == (5, 16)
    assert gpu.processes == [7, 9]
    assert gpu.missing == {}


def test_a_figure_that_is_not_supported_is_none_with_its_reason() -> None:
    refused = {
        "nvmlDeviceGetPowerUsage": nvml_error("NOT_SUPPORTED"),
        "nvmlDeviceGetCurrentClocksEventReasons": nvml_error("FUNCTION_NOT_FOUND"),
    }
    (gpu,) = sampler_of(FakeGpu(refused=refused))[0].sample().gpus
    assert gpu.power_w is None
    assert gpu.throttle is None
    assert gpu.missing.keys() == {"power_w", "throttle"}
    assert gpu.temperature_c == 41


def test_a_lost_gpu_does_not_hide_the_other() -> None:
    lost, well = FakeGpu(), FakeGpu(uuid="GPU-1", processes=[(WORKER, 6 * GIB)])
    sampler, _ = sampler_of(lost, well)
    sampler.sample()
    lost.refused["everything"] = nvml_error("GPU_IS_LOST")
    first, second = sampler.sample().gpus
    assert first.memory_used is None
    assert "lost" in first.missing["memory_used"]
    assert second.memory_used == 10 * GIB
    assert sampler.process_memory(WORKER, ON_GPU) == ProcessMemory(6 * GIB, "nvml")


def test_mig_instances_are_devices_with_their_boards_sensors() -> None:
    instance = FakeGpu(
        name="NVIDIA A100 MIG 1g.5gb",
        uuid="MIG-1",
        used=GIB,
        total=5 * GIB,
        processes=[(WORKER, None)],
        refused=dict.fromkeys(
            (
                "nvmlDeviceGetUtilizationRates",
                "nvmlDeviceGetTemperature",
                "nvmlDeviceGetPowerUsage",
            ),
            nvml_error("NOT_SUPPORTED"),
        ),
    )
    sampler, _ = sampler_of(FakeGpu(instances=[None, instance, None]))
    (gpu,) = sampler.sample().gpus
    assert (gpu.mig, gpu.uuid, gpu.memory_total) == (True, "MIG-1", 5 * GIB)
    assert gpu.utilisation is None
    assert gpu.missing.keys() == {"utilisation"}
    assert gpu.power_w == 312.5
    assert sampler.process_memory(WORKER, ON_GPU).reason == gpus_module.NOT_AVAILABLE


@pytest.mark.parametrize(
    ("code", "word"),
    [
        ("LIBRARY_NOT_FOUND", "no NVIDIA driver"),
        ("DRIVER_NOT_LOADED", "not loaded"),
        ("NO_PERMISSION", "permission"),
        ("LIB_RM_VERSION_MISMATCH", "restart"),
        ("UNKNOWN", "NVML: Unknown Error"),
    ],
)
def test_no_driver_is_a_reason_and_asked_once(code: str, word: str) -> None:
    loads = 0
    nvml = FakeNvml(init_error=nvml_error(code))

    def load() -> Any:
        nonlocal loads
        loads += 1
        return nvml

    sampler = DeviceSampler(Gpus(load))
    for _ in range(3):
        sample = sampler.sample()
        assert sample.gpus == []
        assert word in sample.no_gpu
    memory = sampler.process_memory(WORKER, ON_GPU)
    assert memory.source == "torch"
    assert word in memory.reason
    assert loads == 1


def test_a_missing_nvidia_ml_py_is_a_reason() -> None:
    def load() -> Any:
        raise ImportError("No module named 'pynvml'")

    assert "pynvml" in DeviceSampler(Gpus(load)).sample().no_gpu


def test_a_driver_without_gpus_is_a_reason() -> None:
    assert "no GPU" in sampler_of()[0].sample().no_gpu
    refused = {"nvmlDeviceGetHandleByIndex": nvml_error("NO_PERMISSION")}
    assert "permission" in sampler_of(FakeGpu(refused=refused))[0].sample().no_gpu


def test_what_does_not_change_is_asked_once() -> None:
    sampler, nvml = sampler_of(FakeGpu())
    for _ in range(5):
        sampler.sample()
    for function in ("nvmlDeviceGetName", "nvmlDeviceGetUUID", "nvmlDeviceGetEnforcedPowerLimit"):
        assert nvml.calls.count(function) == 1


def test_closing_lets_go_of_the_driver() -> None:
    sampler, nvml = sampler_of(FakeGpu())
    sampler.sample()
    assert nvml.open == 1
    sampler.close()
    sampler.close()
    assert nvml.open == 0
    assert len(sampler.sample().gpus) == 1


def test_only_another_namespace_makes_a_pid_foreign(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for first, expected in ((True, False), (False, True)):
        monkeypatch.setattr(gpus_module, "_in_first_pid_namespace", lambda first=first: first)
        assert gpus_module.is_foreign(gone.pid) is expected
        assert not gpus_module.is_foreign(os.getpid())


# ------------------------------------------------------------ processor and main memory


def test_the_host_has_a_name_and_memory() -> None:
    host = Host()
    sample = host.sample()
    assert sample.cpu
    assert 1 <= sample.cores <= (os.cpu_count() or 1)
    assert 0 < sample.ram_used < sample.ram_total
    assert sample.cpu_percent is None  # nothing to compare with yet


def test_the_busy_share_is_of_the_time_between_two_samples(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds = iter([(100.0, 1000.0), (103.0, 1004.0), (103.0, 1004.0)])
    monkeypatch.setattr(host_module, "_cpu_seconds", lambda: next(seconds))
    host = Host()
    assert [host.sample().cpu_percent for _ in range(3)] == [None, 75.0, None]


def test_the_processors_name_is_read(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_bytes(b"processor\t: 0\nmodel name\t: Fast  CPU \xff 3\n")
    assert cpu_name(cpuinfo) == "Fast CPU \ufffd 3"
    cpuinfo.write_text("processor\t: 0\nBogoMIPS\t: 50.00\n")
    assert cpu_name(cpuinfo)
    assert cpu_name(tmp_path / "nowhere")


def test_what_the_kernel_killed_for_memory_is_counted(tmp_path: Path) -> None:
    vmstat = tmp_path / "vmstat"
    vmstat.write_text("pgfault 12\noom_kill 3\nswap_ra 0\n")
    assert oom_kills(vmstat) == 3
    vmstat.write_text("pgfault 12\n")  # an older kernel
    assert oom_kills(vmstat) is None
    assert oom_kills(tmp_path / "nowhere") is None


def test_a_tree_counts_its_children_and_ends_as_none() -> None:
    script = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'print(1, flush=True); input()'],"
        " stdin=subprocess.PIPE)\n"
        "input()\n"
        "child.communicate(b'\\n')\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "1\n"  # the child is up
    alone = psutil.Process(parent.pid).memory_info().rss
    sampler = DeviceSampler(Gpus(FakeNvml))
    memory = sampler.process_memory(parent.pid, ON_CPU)
    assert memory.source == "resident"
    assert memory.bytes is not None
    assert memory.bytes > alone
    parent.communicate("\n")
    assert sampler.process_memory(parent.pid, ON_CPU) == ProcessMemory(
        None, "unknown", "the process has ended"
    )


def test_a_child_that_has_ended_is_left_out() -> None:
    tree = ProcessTree(os.getpid())
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert tree.resident()
    child.communicate(b"\n")
    resident = tree.resident()
    assert resident is not None
    assert resident > 0
