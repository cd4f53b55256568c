"""The top line: the name of the profile, and the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content
from textual.widget import Widget

from quantchat.app.widgets.text_layout import join_fitting, quiet, spread, untrusted
from quantchat.document import figures

if TYPE_CHECKING:
    from quantchat.system.gpus import GpuSample
    from quantchat.system.host import HostSample
    from quantchat.system.sampler import DeviceSample

_MIN_NAME = 12
"""Fewest cells for the processor's name; with less room it is left out."""


class DeviceLine(Widget):
    """Shows the GPUs with their figures; without a GPU, the processor and main memory."""

    DEFAULT_CSS = """
    DeviceLine { height: 1; padding: 0 1; background: $panel; text-wrap: nowrap; }
    """

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = title
        self._sample: DeviceSample | None = None

    def show(self, sample: DeviceSample) -> None:
        """Draw `sample`."""
        self._sample = sample
        self.refresh()

    def render(self) -> Content:
        """Return the title at the left and the machine at the right."""
        width = self.size.width
        title = Content.styled("quantchat ", "bold") + untrusted(self._title, "$quiet")
        room = max(width - title.cell_length - 3, width * 3 // 5)
        if self._sample is None:
            return spread(title, quiet("looking for GPUs"), width)
        return spread(title, machine(self._sample, room), width)


def machine(sample: DeviceSample, width: int) -> Content:
    """Return the machine's figures in at most `width` cells."""
    if not sample.gpus:
        return _host(sample.host, width)
    if len(sample.gpus) == 1:
        return _gpu(sample.gpus[0], width)
    numbered = (quiet(f"{gpu.index} ") + _short(gpu) for gpu in sample.gpus)
    return join_fitting(numbered, width, gap=" │ ")


def _percent(value: float | None) -> str:
    return figures.UNKNOWN if value is None else f"{value:.0f} %"


def used_of_total(used: int | None, total: int | None, *, separator: str = " of ") -> str:
    """Return used and total bytes in the unit of the total: `9.8 of 24.0 GiB`.

    `separator` stands between the two.
    """
    whole = figures.size(total)
    if used is None or total is None:
        return f"{figures.UNKNOWN}{separator}{whole}"
    unit = 1024 ** ("B", "KiB", "MiB", "GiB", "TiB").index(whole.split()[-1])
    return f"{used / unit:.1f}{separator}{whole}"


def _gpu(gpu: GpuSample, width: int) -> Content:
    power = figures.UNKNOWN if gpu.power_w is None else f"{gpu.power_w:.0f} W"
    if gpu.power_w is not None and gpu.power_limit_w is not None:
        power = f"{gpu.power_w:.0f} of {gpu.power_limit_w:.0f} W"
    numbers = [
        quiet("VRAM ") + Content(used_of_total(gpu.memory_used, gpu.memory_total)),
        quiet("use ") + Content(_percent(gpu.utilisation)),
        Content(_temperature(gpu)),
        Content(power),
    ]
    if gpu.throttle:
        numbers.append(Content.styled("throttled: ", "$warning") + untrusted(gpu.throttle[0]))
    line = _named(gpu.name + (" (MIG)" if gpu.mig else ""), numbers)
    return line if line.cell_length <= width else _short(gpu)


def _temperature(gpu: GpuSample) -> str:
    return figures.UNKNOWN if gpu.temperature_c is None else f"{gpu.temperature_c} °C"


def _short(gpu: GpuSample) -> Content:
    name = gpu.name.removeprefix("NVIDIA ").removeprefix("GeForce ")
    power = figures.UNKNOWN if gpu.power_w is None else f"{gpu.power_w:.0f} W"
    memory = used_of_total(gpu.memory_used, gpu.memory_total, separator="/")
    return _named(
        name, [Content(t) for t in (memory, _percent(gpu.utilisation), _temperature(gpu), power)]
    )


def _named(name: str, numbers: list[Content]) -> Content:
    return Content("  ").join([untrusted(name), *numbers])


def _host(host: HostSample, width: int) -> Content:
    numbers = [
        quiet("no GPU"),
        Content(figures.plural(host.cores, "core"))
        + quiet(" use ")
        + Content(_percent(host.cpu_percent)),
        quiet("RAM ") + Content(used_of_total(host.ram_used, host.ram_total)),
    ]
    line = join_fitting(numbers, width)
    room = width - line.cell_length - 2
    if room < _MIN_NAME:
        return line
    return untrusted(host.cpu).truncate(room, ellipsis=True) + "  " + line
