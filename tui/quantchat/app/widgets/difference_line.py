"""One line that says how the two variants differ in speed and memory."""

from __future__ import annotations

from textual.content import Content
from textual.widget import Widget

from quantchat.app.widgets.lines import outside, quiet
from quantchat.bench.conversation import Answer
from quantchat.bench.live_variant import LiveVariant
from quantchat.metrics.latency import decode_throughput
from quantchat.report import figures

_GAP = " · "

SIDES = ("$side-left", "$side-right")


class DifferenceLine(Widget):
    """Speed ratio, memory difference."""

    DEFAULT_CSS = """
    DifferenceLine { height: 1; padding: 0 1; background: $panel; text-wrap: nowrap; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._variants: tuple[LiveVariant, LiveVariant] | None = None
        self._answers: tuple[Answer | None, Answer | None] = (None, None)
        self._memory: tuple[int | None, int | None] = (None, None)

    def observe(
        self,
        variants: tuple[LiveVariant, LiveVariant],
        answers: tuple[Answer | None, Answer | None],
        memory: tuple[int | None, int | None],
    ) -> None:
        """Draw the difference of the newest answers to one prompt; `memory` in bytes."""
        self._variants, self._answers, self._memory = variants, answers, memory
        self.refresh()

    def render(self) -> Content:
        """Both, as far as they are known."""
        width = self.size.width
        if self._variants is None:
            return Content()
        names = [
            outside(variant.label).truncate(max(8, width // 6), ellipsis=True).stylize(side)
            for variant, side in zip(self._variants, SIDES, strict=True)
        ]
        line = _speed_and_memory(names, _speed(*self._answers), _memory(*self._memory))
        return line.truncate(width, ellipsis=True) or quiet("no difference to show yet")


def _speed(first: Answer | None, second: Answer | None) -> tuple[int, Content] | None:
    """Which side is faster, and by how much."""
    if first is None or second is None:
        return None
    rates = [decode_throughput(one.times_ns, one.counted) for one in (first, second)]
    if rates[0] is None or rates[1] is None:
        return None
    ratio = max(rates[0], rates[1]) / min(rates[0], rates[1])
    how = "contended" if "together" in (first.order, second.order) else "in turn"
    text = Content(f" {ratio:.2f}× faster") + quiet(f" ({how})")
    return (0 if rates[0] >= rates[1] else 1), text


def _memory(first: int | None, second: int | None) -> tuple[int, Content] | None:
    """Which side is smaller, and by how much."""
    if first is None or second is None:
        return None
    return (0 if first <= second else 1), Content(f" {figures.size(abs(first - second))} smaller")


def _speed_and_memory(
    names: list[Content], speed: tuple[int, Content] | None, memory: tuple[int, Content] | None
) -> Content:
    """Both, without naming the same side twice."""
    if speed and memory and speed[0] == memory[0]:
        return names[speed[0]] + speed[1] + "," + memory[1]
    return Content(_GAP).join(names[side] + text for side, text in filter(None, (speed, memory)))
