"""A diagnosis as tables (Rich)."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from quantchat.document.figures import UNKNOWN, size
from quantchat.document.style import plain_table
from quantchat.features.doctor.diagnosis import Problem, problems, usable
from quantchat.features.doctor.inspection import Diagnosis
from quantchat.features.doctor.system_info import Terminal
from quantchat.system.gpus import GpuSample
from quantchat.system.visible_gpus import cuda_name, shown_gpus
from quantchat.text import one_line
from quantchat.wire.jobs import COMPILES, READY, UNUSABLE, BuildTools, Kernel, TorchInfo

_STATES = {READY: "green", COMPILES: "yellow", UNUSABLE: "dim"}


def render(found: Diagnosis) -> Group:
    """Everything that was found, the problems last, where they are read."""
    parts: list[RenderableType] = [_facts(found), _folders(found)]
    if found.worker:
        parts.append(_kernels(found.worker.kernels))
    parts += [_problem(problem) for problem in problems(found)]
    if usable(found):
        parts.append(Text("usable", style="green"))
    else:
        parts.append(Text("not usable until that is mended", style="bold red"))
    return Group(*parts)


def _facts(found: Diagnosis) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in _lines(found):
        table.add_row(Text(name), Text(one_line(value)))
    return table


def _lines(found: Diagnosis) -> Iterator[tuple[str, str]]:
    yield "Python", f"{found.interpreter.version}, {found.interpreter.executable}"
    yield "system", found.interpreter.system
    yield (
        "libraries",
        ", ".join(f"{name} {version or UNKNOWN}" for name, version in found.libraries.items()),
    )
    for extra, brought in found.extras.items():
        yield f"extra {extra}", brought or f"not installed: pip install 'quantchat[{extra}]'"
    host = found.device.host
    yield "processor", f"{host.cpu}, {host.cores} cores"
    yield "RAM", f"{size(host.ram_total - host.ram_used)} of {size(host.ram_total)} free"
    shown = shown_gpus(found.device.gpus)
    for gpu in found.device.gpus:
        named = cuda_name(gpu, shown) or "not shown to CUDA"
        yield f"GPU {gpu.index}", f"{_gpu(gpu)}, {named}"
    if found.device.gpus:
        yield "driver", f"{found.device.driver or UNKNOWN}, CUDA {found.device.cuda or UNKNOWN}"
    else:
        yield "GPU", found.device.no_gpu
    if found.worker:
        yield "torch", _torch(found.worker.torch)
        yield "compilers", _tools(found.worker.tools)
    yield "terminal", _terminal(found.terminal)


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


def _folders(found: Diagnosis) -> Table:
    table = plain_table()
    for name in ("folder", "size", "disk free", "", "path"):
        right = name in ("size", "disk free")
        table.add_column(name, overflow="fold", justify="right" if right else "left")
    for folder in found.folders:
        state = "writable" if folder.writable else "not writable"
        table.add_row(
            Text(folder.name),
            Text(size(folder.size)),
            Text(size(folder.free)),
            Text(state if folder.exists else f"{state}, not made yet"),
            Text(one_line(folder.path)),
        )
    return table


def _kernels(kernels: list[Kernel]) -> Table:
    table = plain_table()
    for name in ("library", "kernel", "state", ""):
        table.add_column(name, overflow="fold")
    for kernel in kernels:
        detail = kernel.detail
        if kernel.auto:
            detail = ", ".join(filter(None, ("what auto takes", detail)))
        table.add_row(
            Text(one_line(kernel.library)),
            Text(one_line(kernel.name)),
            Text(one_line(kernel.state), style=_STATES.get(kernel.state, "")),
            Text(one_line(detail)),
        )
    return table


def _problem(problem: Problem) -> Text:
    sign, style = ("✗", "bold red") if problem.grave else ("!", "yellow")
    return Text.assemble(
        (f"{sign} ", style), one_line(problem.what), "\n  → ", one_line(problem.cure)
    )
