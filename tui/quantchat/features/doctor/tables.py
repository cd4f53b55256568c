"""A diagnosis as tables; the problems come last."""

from __future__ import annotations

from collections.abc import Iterator

from quantchat.document.document import Block, Cell, Column, Role, Table, paragraph, table
from quantchat.document.figures import UNKNOWN, size
from quantchat.features.doctor.diagnosis import Problem, problems, usable
from quantchat.features.doctor.inspection import Diagnosis
from quantchat.features.doctor.system_info import Terminal
from quantchat.system.gpus import GpuSample
from quantchat.system.visible_gpus import cuda_name, gpus_visible_here
from quantchat.wire.jobs import COMPILES, READY, UNUSABLE, BuildTools, Kernel, TorchInfo

_STATES: dict[str, Role] = {READY: "good", COMPILES: "warning", UNUSABLE: "quiet"}
"""State of a kernel → the role of its cell."""


def blocks(diagnosis: Diagnosis) -> list[Block]:
    """Return the tables of the diagnosis, its problems, and whether quantchat is usable."""
    parts: list[Block] = [
        Table(
            "",
            (Column(role="quiet"), Column()),
            tuple((Cell(name), Cell(value)) for name, value in _lines(diagnosis)),
        ),
        _folders(diagnosis),
    ]
    if diagnosis.worker:
        parts.append(_kernels(diagnosis.worker.kernels))
    for problem in problems(diagnosis):
        parts += _problem(problem)
    if usable(diagnosis):
        parts.append(paragraph(("usable", "good")))
    else:
        parts.append(paragraph(("not usable until the problems marked ✗ are solved", "grave")))
    return parts


def _lines(diagnosis: Diagnosis) -> Iterator[tuple[str, str]]:
    yield "Python", f"{diagnosis.interpreter.version}, {diagnosis.interpreter.executable}"
    yield "system", diagnosis.interpreter.system
    yield (
        "libraries",
        ", ".join(f"{name} {version or UNKNOWN}" for name, version in diagnosis.libraries.items()),
    )
    for extra, brought in diagnosis.extras.items():
        yield f"extra {extra}", brought or f"not installed: pip install 'quantchat[{extra}]'"
    host = diagnosis.device.host
    yield "processor", f"{host.cpu}, {host.cores} cores"
    yield "RAM", f"{size(host.ram_total - host.ram_used)} of {size(host.ram_total)} free"
    shown = gpus_visible_here(diagnosis.device.gpus)
    for gpu in diagnosis.device.gpus:
        named = cuda_name(gpu, shown) or "hidden from CUDA"
        yield f"GPU {gpu.index}", f"{_gpu(gpu)}, {named}"
    if diagnosis.device.gpus:
        yield (
            "driver",
            f"{diagnosis.device.driver or UNKNOWN}, CUDA {diagnosis.device.cuda or UNKNOWN}",
        )
    else:
        yield "GPU", diagnosis.device.no_gpu
    if diagnosis.worker:
        yield "torch", _torch(diagnosis.worker.torch)
        yield "compilers", _tools(diagnosis.worker.tools)
    yield "terminal", _terminal(diagnosis.terminal)


def _gpu(gpu: GpuSample) -> str:
    return f"{gpu.name}, {size(gpu.memory_free)} of {size(gpu.memory_total)} free"


def _torch(torch: TorchInfo) -> str:
    built = f"built for CUDA {torch.cuda}" if torch.cuda else "built without CUDA"
    devices = [f"{one.name} (sm {one.capability})" for one in torch.devices]
    return f"{torch.version}, {built}, uses {', '.join(devices) or 'the processor'}"


def _tools(tools: BuildTools) -> str:
    nvcc = f"nvcc {tools.nvcc_release}" if tools.nvcc else "no nvcc"
    triton = f"Triton {tools.triton}" if tools.triton else "no Triton"
    compilers = (("c++", tools.cxx), ("ninja", tools.ninja))
    return ", ".join([nvcc, *(name if path else f"no {name}" for name, path in compilers), triton])


def _terminal(terminal: Terminal) -> str:
    if not terminal.interactive:
        return "none: the output or input is not a terminal"
    parts = [
        terminal.term or UNKNOWN,
        f"{terminal.columns} × {terminal.rows}",
        f"colours: {terminal.colours}",
        "Unicode" if terminal.unicode else "no Unicode",
        terminal.multiplexer,
        "over SSH" if terminal.ssh else "",
    ]
    return ", ".join(part for part in parts if part)


def _folders(diagnosis: Diagnosis) -> Table:
    headings = ("folder", Column("size", right=True), Column("disk free", right=True))
    rows = []
    for folder in diagnosis.folders:
        state = "writable" if folder.writable else "not writable"
        rows.append(
            (
                folder.name,
                size(folder.size),
                size(folder.free),
                state if folder.exists else f"{state}, does not exist yet",
                folder.path,
            )
        )
    return table("", (*headings, Column(), Column("path")), rows)


def _kernels(kernels: list[Kernel]) -> Table:
    rows = []
    for kernel in kernels:
        detail = kernel.detail
        if kernel.auto:
            detail = ", ".join(filter(None, ("chosen by auto", detail)))
        state = Cell(kernel.state, role=_STATES.get(kernel.state, "plain"))
        rows.append((kernel.library, kernel.name, state, detail))
    return table("", [Column(name) for name in ("library", "kernel", "state", "")], rows)


def _problem(problem: Problem) -> list[Block]:
    sign: tuple[str, Role] = ("✗ ", "grave") if problem.grave else ("! ", "warning")
    return [paragraph(sign, problem.what), paragraph(f"→ {problem.cure}", indent=2)]
