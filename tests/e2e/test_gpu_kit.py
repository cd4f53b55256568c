"""The kit for the first run on a GPU runs on a CPU, so that it does not break unnoticed."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import quantchat
from fakes.decoding import ENVIRONMENT
from fakes.saved_measurement import measured
from quantchat.snapshot import store

ROOT = Path(__file__).parents[2]
KIT = ROOT / "benchmarks" / "gpu"


def kit(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(KIT))
    return importlib.import_module(name)


def test_the_quick_parts_of_the_first_run(tmp_path: Path) -> None:
    """Install, checkpoints, two probes, the plan, the tables."""
    beside = str(Path(sys.executable).parent)
    environment = {
        **ENVIRONMENT,
        "PATH": os.pathsep.join((beside, ENVIRONMENT["PATH"])),
        "PYTHONPATH": str(Path(quantchat.__file__).parents[1]),
        "CUDA_VISIBLE_DEVICES": "",
        "DRY": "1",
        "PARTS": "probe plan",
        "PROBES": "machine the_end",
        "WORK": str(tmp_path / "work"),
        "OUT": str(tmp_path / "out"),
    }
    run = subprocess.run(
        ["bash", str(KIT / "first_gpu.sh"), "900"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    told = run.stdout + run.stderr
    assert run.returncode == 0, told[-3000:]
    for words in (
        "NO GPU",
        "gptq-4-bit-g128 made",
        '"probe": "machine"',
        "----- plan: status 0",
        "GPTQ 4-bit",
        "| the_end | answers | True |",
        "##### [",
        "the end",
    ):
        assert words in told, told[-3000:]
    assert "status 1" not in told and "status 2" not in told
    (file,) = (tmp_path / "out" / "results").glob("gpu-probe-*.json")
    assert set(json.loads(file.read_text())["probes"]) == {"machine", "the_end"}


def test_a_probe_that_fails_is_an_answer_and_keeps_none_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    probe, questions = kit("probe", monkeypatch), kit("questions", monkeypatch)

    def broken() -> dict[str, Any]:
        """Works."""
        raise RuntimeError("CUDA error: an illegal | memory access")

    probes = {"broken": broken, "fine": lambda: {"us": {"a|b": 1.23456}}}
    monkeypatch.setattr(questions, "PROBES", probes)
    monkeypatch.setattr(questions, "device_name", lambda: "NVIDIA H200")
    run = ["probe.py", "--results", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", run)
    assert probe.main() == 0
    monkeypatch.setattr(sys, "argv", [*run, "fine"])
    probes["fine"] = lambda: {"us": {"a|b": 2.0}}
    assert probe.main() == 0
    monkeypatch.setattr(sys, "argv", [*run, "--seconds", "-1"])
    assert probe.main() == 0
    assert "skipped, no time left" in capsys.readouterr().out
    (body,) = probe.read(tmp_path)
    assert body["device"] == "NVIDIA H200"
    assert body["probes"]["broken"]["expected"] == "Works."
    assert body["probes"]["fine"]["command"].endswith("fine")
    monkeypatch.setattr(sys, "argv", [*run, "--table"])
    assert probe.main() == 0
    out = capsys.readouterr().out
    assert "| broken | error | RuntimeError: CUDA error: an illegal / memory access |" in out
    assert "| fine | us: a/b | 2 |" in out


def test_memory_is_shown_beside_nvidia_smi(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    memory = kit("memory", monkeypatch)
    file = tmp_path / "one.json"
    (tmp_path / "saved").mkdir()
    file.write_bytes(store.dumps(measured(tmp_path / "saved", labels=("GPTQ", "NF4"))))
    smi = tmp_path / "smi.csv"
    smi.write_text("12, 700\n12, 650\n7, [N/A]\nNo devices were found\n")
    monkeypatch.setattr(sys, "argv", ["memory.py", str(smi), str(file)])
    memory.main()
    out = capsys.readouterr().out
    assert "most MiB by pid: {12: 700}" in out
    assert out.count("tok/s, TTFT") > 1
    for words in ("GPTQ: ", "NF4: ", "weights", "planned"):
        assert words in out
    assert memory.most_by_pid(tmp_path / "none.csv") == {}
