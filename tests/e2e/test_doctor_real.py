"""The doctor's job in a real worker runs real kernels, compiles none and leaves no files."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantchat.features.doctor.inspection import loaders
from quantchat.host.job_runner import run_job
from quantchat.host.worker_process import start_worker
from quantchat.wire.jobs import InspectKernelsJob, Workspace


async def test_kernels_are_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTCHAT_LOGS", str(tmp_path / "logs"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    steps: list[str] = []
    found = await run_job(
        start_worker,
        InspectKernelsJob(Workspace(str(scratch), str(scratch)), loaders()),
        lambda done, total, detail: steps.append(detail),
    )
    assert found.libraries == {}
    assert not found.torch.available
    kernels = {(kernel.library, kernel.name): kernel for kernel in found.kernels}
    for kind in ("nf4", "fp4", "int8"):
        assert kernels["bitsandbytes", kind].state == "ready"
    for name in ("torch", "torch_aten"):
        assert kernels["gptqmodel", name].state == "ready"
    for name in ("marlin", "machete", "exllama_v2", "triton"):
        assert kernels["gptqmodel", name].state == "cannot run"
        assert "cuda" in kernels["gptqmodel", name].detail
    # What a demo's GPTQ variant says of itself once loaded: TorchAtenLinear.
    assert [k.name for k in found.kernels if k.auto] == ["torch_aten"]
    assert steps[0] == "importing torch"
    assert list(scratch.iterdir()) == []
