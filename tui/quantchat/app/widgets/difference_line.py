"""The line that shows how the two variants differ in speed and memory."""

from __future__ import annotations

from textual.content import Content
from textual.widget import Widget

from quantchat.app.memory_track import MemoryTrack
from quantchat.app.widgets.text_layout import SIDES, quiet, untrusted
from quantchat.document import figures
from quantchat.session.conversation import Answer
from quantchat.session.live_variant import LiveVariant
from quantchat.statistics.latency import decode_throughput, while_both_decode
from quantchat.wire.variant import decode_modes_differ

_GAP = " · "
MIN_SHARED_TOKENS = 16
"""Fewest tokens that each variant must decode while the other decodes too, for a ratio of their
speeds to be shown."""


class DifferenceLine(Widget):
    """Shows the ratio of the decode throughputs and the difference in memory."""

    DEFAULT_CSS = """
    DifferenceLine { height: 1; padding: 0 1; background: $panel; text-wrap: nowrap; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._variants: tuple[LiveVariant, ...] | None = None
        self._answers: tuple[Answer | None, Answer | None] = (None, None)
        self._memory: tuple[MemoryTrack, MemoryTrack] | None = None

    def observe(
        self,
        variants: tuple[LiveVariant, ...],
        answers: tuple[Answer | None, Answer | None],
        memory: tuple[MemoryTrack, MemoryTrack],
    ) -> None:
        """Draw how `answers`, to the newest prompt, differ in speed, and `variants` in memory."""
        self._variants, self._answers, self._memory = variants, answers, memory
        self.refresh()

    def render(self) -> Content:
        """Return speed and memory, as far as they are known; a shorter form if space is short."""
        width = self.size.width
        if self._variants is None:
            return Content()
        names = [
            untrusted(variant.label).truncate(max(8, width // 6), ellipsis=True).stylize(side)
            for variant, side in zip(self._variants, SIDES, strict=True)
        ]
        memory = _memory(*self._memory) if self._memory else None
        line = _speed_and_memory(names, _speed(*self._answers), memory)
        if line.cell_length > width:
            line = _speed_and_memory(names, _speed(*self._answers, short=True), memory)
        return line.truncate(width, ellipsis=True) or quiet("no difference to show yet")


def _speed(
    first: Answer | None, second: Answer | None, *, short: bool = False
) -> tuple[int | None, Content] | None:
    """Return the side that was faster in this single answer, and a text that says by how much.

    The side is 0 (left) or 1 (right), or None if both speeds are known but not comparable; the text
    then says why.
    """
    if first is None or second is None:
        return None
    rates = [
        decode_throughput(answer.times_ns, answer.reported_tokens) for answer in (first, second)
    ]
    if rates[0] is None or rates[1] is None:
        return None
    contended = "together" in (first.order, second.order)
    if contended and not _mostly_together(first, second):
        return None, quiet("no ratio: too few tokens were decoded while both ran")
    ratio = max(rates[0], rates[1]) / min(rates[0], rates[1])
    shown = f"{ratio:.2f}"
    text = Content(" as fast as the other" if shown == "1.00" else f" {shown}× faster")
    # Say "single answer": such ratios scatter widely even between two runs of one variant.
    orders = figures.NARROW_ORDERS if short else figures.ORDERS
    how = orders["together" if contended else "in-turn"] + ", single answer"
    models = [answer.ran_on.model_info if answer.ran_on else None for answer in (first, second)]
    if decode_modes_differ(*models):
        how += ", different decode modes"
    text += quiet(f" · {how}")
    return (0 if rates[0] >= rates[1] else 1), text


def _mostly_together(first: Answer, second: Answer) -> bool:
    """Return whether both decoded together for long enough that their speeds are comparable.

    The columns show the speed over each whole answer. Once the shorter answer has ended, the
    longer one no longer shares the machine, which makes it faster.
    """
    shared = while_both_decode(first.times_ns, second.times_ns)
    return all(
        len(both) >= MIN_SHARED_TOKENS and 2 * len(both) >= len(answer.times_ns)
        for both, answer in zip(shared, (first, second), strict=True)
    )


def _memory(first: MemoryTrack, second: MemoryTrack) -> tuple[int, Content] | None:
    """Return the side that needs less memory (0 left, 1 right), and a text that says how much less.

    On GPUs, process totals are compared. Otherwise only the weights are compared, because resident
    memory varies more between two starts of one variant than between two quantizations.
    """
    sizes = [track.latest.bytes if track.latest else None for track in (first, second)]
    sources = {track.latest.source for track in (first, second) if track.latest}
    what = "VRAM"
    if not (first.kind == second.kind == "VRAM" and len(sources) == 1):
        sizes = [track.ledger.weights if track.ledger else None for track in (first, second)]
        what = "weights"
    left, right = sizes
    if left is None or right is None or min(left, right) <= 0 or left == right:
        return None
    text = Content(f" {figures.size(abs(left - right))} smaller") + quiet(f" ({what})")
    return (0 if left < right else 1), text


def _speed_and_memory(
    names: list[Content],
    speed: tuple[int | None, Content] | None,
    memory: tuple[int, Content] | None,
) -> Content:
    """Join the texts on speed and memory; if both name the same side, name it only once."""
    if speed and memory and speed[0] == memory[0]:
        return names[memory[0]] + speed[1] + "," + memory[1]
    parts = [
        text if side is None else names[side] + text for side, text in filter(None, (speed, memory))
    ]
    return Content(_GAP).join(parts)
