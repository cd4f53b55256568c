"""One line that says how the two answers, and the two variants, differ."""

from __future__ import annotations

from textual.content import Content
from textual.widget import Widget

from quantchat.app.widgets.lines import fitted, outside, quiet
from quantchat.bench.conversation import Answer, divergence_point, same_tokenizer
from quantchat.bench.live_variant import LiveVariant
from quantchat.metrics.latency import decode_throughput
from quantchat.report import figures

_EXCERPT = 14
"""Characters shown of each answer where they part."""

_GAP = " · "

SIDES = ("$side-left", "$side-right")


class DifferenceLine(Widget):
    """Speed ratio, memory difference, divergence point."""

    DEFAULT_CSS = """
    DifferenceLine { height: 1; padding: 0 1; background: $panel; text-wrap: nowrap; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._variants: tuple[LiveVariant, LiveVariant] | None = None
        self._answers: tuple[Answer | None, Answer | None] = (None, None)
        self._memory: tuple[int | None, int | None] = (None, None)
        self._same = 0
        """Tokens that both answers are known to begin with: they are not compared again."""

    def observe(
        self,
        variants: tuple[LiveVariant, LiveVariant],
        answers: tuple[Answer | None, Answer | None],
        memory: tuple[int | None, int | None],
    ) -> None:
        """Draw the difference of the newest answers to one prompt; `memory` in bytes."""
        if any(a is not b for a, b in zip(answers, self._answers, strict=True)):
            self._same = 0
        self._variants, self._answers, self._memory = variants, answers, memory
        self.refresh()

    def render(self) -> Content:
        """What fits: the excerpts of the answers give way first."""
        width = self.size.width
        if self._variants is None:
            return Content()
        names = [
            outside(variant.label).truncate(max(8, width // 6), ellipsis=True).stylize(side)
            for variant, side in zip(self._variants, SIDES, strict=True)
        ]
        parts = [_speed_and_memory(names, _speed(*self._answers), _memory(*self._memory))]
        first, second = self._answers
        if first is not None and second is not None:
            excerpt, point = self._divergence(first, second)
            room = width - parts[0].cell_length - len(_GAP)
            parts.append(excerpt if excerpt.cell_length <= room else point)
        return fitted(parts, width, gap=_GAP) or quiet("no difference to show yet")

    def _divergence(self, first: Answer, second: Answer) -> tuple[Content, Content]:
        """Where the answers part: with an excerpt of each from there on, and without."""
        if not first.ids or not second.ids:
            text = Content()
        elif not same_tokenizer(first, second):
            text = quiet("tokenizers differ")
        elif (point := divergence_point(first, second, same=self._same)) is not None:
            short = Content(f"part at token {point + 1}")
            left, right = (
                outside(_from(a, point), s) for a, s in zip((first, second), SIDES, strict=True)
            )
            return short + ": " + left + quiet(" / ") + right, short
        else:
            self._same = min(len(first.ids), len(second.ids))
            text = (
                Content("same answer")
                if first.over and second.over
                else quiet("no difference so far")
            )
        return text, text


def _speed(first: Answer | None, second: Answer | None) -> tuple[int, Content] | None:
    """Which side is faster, and by how much."""
    if first is None or second is None:
        return None
    rates = decode_throughput(first.times_ns), decode_throughput(second.times_ns)
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


def _from(answer: Answer, point: int) -> str:
    """The first words of `answer` from token `point` on; `end` where there are none."""
    text = "".join(answer.pieces[point : point + _EXCERPT]).strip()
    if not text:
        return "end" if answer.over else "…"
    return f"“{text if len(text) <= _EXCERPT else text[: _EXCERPT - 1] + '…'}”"
