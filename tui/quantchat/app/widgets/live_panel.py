"""The live panel at the bottom of a column: throughput, latency and memory of a variant.

Two strip charts show throughput and memory over time.
"""

from __future__ import annotations

from dataclasses import dataclass

from textual.content import Content
from textual.geometry import Region, Size
from textual.widget import Widget

from quantchat.app.memory_track import MemoryTrack
from quantchat.app.widgets.strip_chart import at_intervals, strip_chart
from quantchat.app.widgets.text_layout import join_fitting, quiet, spread
from quantchat.document import figures
from quantchat.session.conversation import Answer
from quantchat.statistics.latency import TurnTiming, decode_throughput, throughput_now
from quantchat.statistics.streaming_percentiles import StreamingTiming
from quantchat.wire.variant import ANY_SERVER, EXTERNAL_SERVER, Ledger

INTERVAL_S = 0.5
"""Seconds that one cell of the strip chart of throughput covers."""
MEMORY_INTERVAL_S = 1.0
"""Seconds that one cell of the strip chart of memory covers: the sampling interval."""
_LABEL = 7
"""Width of the labels at the left, in cells."""
_SCALE = 9
"""Width of the scales at the right of the strip charts, in cells."""


@dataclass(frozen=True)
class Scales:
    """Upper ends of the scales of the strip charts: throughput in tok/s, memory in bytes.

    They are the same for both columns; 0 if there is no data.
    """

    tok_s: float = 0.0
    memory: int = 0


@dataclass(frozen=True)
class _Timing:
    """Figures computed from an answer, cached until the answer changes."""

    answer: Answer
    state: tuple[int, int, int, int | None, int]
    """The values of the answer on which the figures depend."""
    turn: TurnTiming
    now: float | None
    """Throughput over the last second, in tokens/s or chunks/s."""
    average: float | None
    """Throughput over the whole answer, in the same unit."""
    counts_chunks: bool
    """Whether the unit is chunks/s: the server has not reported its token count."""


class LivePanel(Widget):
    """Shows the figures of a variant's newest answer, and the memory of its worker."""

    DEFAULT_CSS = """
    LivePanel { height: auto; padding: 0 1; background: $surface; text-wrap: nowrap; }
    """

    def __init__(self, memory: MemoryTrack) -> None:
        super().__init__()
        self.side = "$side-left"
        """Colour of the column's side."""
        self._memory = memory
        self._answer: Answer | None = None
        self._timing: _Timing | None = None
        self._streaming = StreamingTiming(INTERVAL_S)
        self._scales = Scales()
        self._drawn_lines: list[Content] = []
        self._drawn_for = (0, 0, "")
        """Width, strip height and colour for which `_drawn_lines` was drawn."""
        self.strip_height = 1
        """Height of each strip chart in lines. With 0, the panel is a single line with the most
        important figures."""

    def observe(self, answer: Answer | None) -> None:
        """Compute the figures of `answer`, the variant's newest one."""
        if answer is not self._answer:
            self._streaming = StreamingTiming(INTERVAL_S)
        self._answer = answer
        if answer is None:
            self._timing = None
            return
        state = (
            len(answer.times_ns),
            answer.prompt_tokens,
            answer.prefilled_ns,
            answer.reported_tokens,
            answer.first_answer_token,
        )
        cached = self._timing
        if cached is None or cached.answer is not answer or cached.state != state:
            chunks = answer.awaits_count
            turn = answer.timing(self._streaming.follow(answer.times_ns))
            average = decode_throughput(answer.times_ns) if chunks else turn.decode_tok_s
            now = throughput_now(answer.times_ns)
            self._timing = _Timing(answer, state, turn, now, average, chunks)

    @property
    def peaks(self) -> tuple[float, int]:
        """The highest throughput (tok/s) and memory (bytes) in the strip charts."""
        sizes = (size for _, size in self._memory.history)
        return max(self._streaming.series, default=0.0), max(sizes, default=0)

    def draw(self, scales: Scales) -> None:
        """Redraw the lines that changed since the last call; `scales` are for the strip charts."""
        self._scales = scales
        before = self._drawn_lines
        self._draw_lines()
        for y, (line, drawn) in enumerate(zip(self._drawn_lines, before, strict=False)):
            if not line.is_same(drawn):
                self.refresh(Region(0, y, self.size.width, 1))
        if len(self._drawn_lines) != len(before):
            self.refresh()

    def _draw_lines(self) -> None:
        self._drawn_for = (self.size.width, self.strip_height, self.side)
        self._drawn_lines = self._lines(self.size.width)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """Return the height: five lines of figures and two strip charts, or a single line."""
        del container, viewport, width
        return 5 + 2 * self.strip_height if self.strip_height else 1

    def render(self) -> Content:
        """Return the lines of the last `draw`: figures, then strip charts."""
        # Return the lines of the last `draw`, not new ones. If Textual repaints only some lines,
        # these would be newer than the rest, and `draw` would compare with lines never shown.
        if self._drawn_for != (self.size.width, self.strip_height, self.side):
            self._draw_lines()
        return Content("\n").join(self._drawn_lines)

    def _lines(self, width: int) -> list[Content]:
        if not self.strip_height:
            return [self._single_line(width)]
        lines = [
            self._throughput(width),
            self._first_token(width),
            self._between_tokens(width),
            *self._ledger(width),
            *self._throughput_strip(self._streaming.series, width),
            *self._memory_strip(width),
        ]
        return [line.truncate(width, ellipsis=True) for line in lines]

    # ------------------------------------------------------------ lines of figures

    def _single_line(self, width: int) -> Content:
        """Return throughput, TTFT, memory and latency on one line, as many as fit."""
        answer, timing, memory = self._answer, self._timing, self._memory
        live = answer is not None and not answer.over
        speed = (timing.now if live else timing.average) if timing else None
        unit = "chunks/s" if timing is not None and timing.counts_chunks else "tok/s"
        itl = timing.turn.itl_ms if timing else None
        total_bytes = memory.latest.bytes if memory.latest else None
        return join_fitting(
            [
                Content.styled(figures.number(speed), f"bold {self.side}")
                + quiet(f" {unit}{' now' if live else ''}"),
                quiet("TTFT ")
                + Content(figures.milliseconds(timing.turn.ttft_ms if timing else None)),
                quiet(f"{memory.kind} ") + Content(figures.size(total_bytes)),
                quiet("ITL ms p50 ") + Content(figures.number(itl.p50 if itl else None)),
            ],
            width,
        )

    def _throughput(self, width: int) -> Content:
        answer, timing = self._answer, self._timing
        live = answer is not None and not answer.over
        now = figures.number(timing.now if timing and live else None)
        average = figures.number(timing.average if timing else None)
        chunks = timing is not None and timing.counts_chunks
        left = _label("chunks" if chunks else "tok/s") + Content.assemble(
            (now, f"bold {self.side}"),
            ("/s now  " if chunks else " now  ", "$quiet"),
            (average, "bold"),
            (" avg", "$quiet"),
        )
        order = figures.ORDERS[answer.order] if answer is not None else ""
        if answer is not None and left.cell_length + len(order) >= width:
            order = figures.NARROW_ORDERS[answer.order]
        return spread(left, quiet(order), width)

    def _first_token(self, width: int) -> Content:
        turn = self._timing.turn if self._timing else None
        served = self._answer is not None and self._answer.from_server
        prompt = ""
        if turn and turn.prompt_tokens:
            # Short enough to stand beside a TTFT on 80 columns.
            cached = f", {turn.cached_tokens} cached" if turn.cached_tokens else " tok"
            prompt = f"prompt {turn.prompt_tokens}{cached}"
        parts = [
            Content(figures.milliseconds(turn.ttft_ms if turn else None)),
            quiet(prompt),
            quiet(
                "incl. network" if served else f"prefill {figures.number(turn.prefill_tok_s)} tok/s"
            )
            if turn
            else Content(),
        ]
        if self._answer is not None and self._answer.thoughts:
            first = figures.milliseconds(turn.ttfa_ms if turn else None)
            parts.insert(1, quiet("TTFA ") + Content(first))
        return _label("TTFT") + join_fitting(parts, width - _LABEL)

    def _between_tokens(self, width: int) -> Content:
        itl = self._timing.turn.itl_ms if self._timing else None
        values = (itl.p50, itl.p95, itl.p99) if itl else (None, None, None)
        parts = [
            quiet(f"{name} ") + Content(figures.number(value))
            for name, value in zip(("p50", "p95", "p99"), values, strict=True)
        ]
        # Never cut a figure: 1204 cut to 12 would be read as 12.
        room = width - _LABEL
        if sum(part.cell_length + 2 for part in parts) + 2 <= room:
            return _label("ITL") + join_fitting([*parts, quiet("ms"), self._acceptance()], room)
        return _label("ITL ms") + join_fitting(parts, room, gap=" ")

    def _acceptance(self) -> Content:
        drafts = self._answer.drafts if self._answer is not None else None
        if drafts is None or drafts.acceptance is None:
            return Content()
        return quiet("acceptance ") + Content(f"{drafts.acceptance:.0f} %")

    def _ledger(self, width: int) -> list[Content]:
        """Return two lines: the total, then the parts, the most important first."""
        memory, ledger = self._memory.latest, self._memory.ledger
        if ledger is not None and ledger.device == EXTERNAL_SERVER:
            return [_label(self._memory.kind) + quiet("not reported by the server"), Content()]
        total = figures.size(memory.bytes if memory else None)
        first = _label(self._memory.kind) + Content.styled(total, "bold")
        parts = [quiet(f"{name} ") + Content(figures.size(b)) for name, b in ledger_parts(ledger)]
        room = width - first.cell_length - 2
        head: list[Content] = []
        while parts and sum(p.cell_length + 2 for p in [*head, parts[0]]) <= room + 2:
            head.append(parts.pop(0))
        source = Content() if parts else quiet(self._memory.source)
        return [
            join_fitting([first, *head], width),
            Content(" " * _LABEL) + join_fitting([*parts, source], width - _LABEL),
        ]

    # ------------------------------------------------------------ strips

    def _throughput_strip(self, values: list[float], width: int) -> list[Content]:
        served = self._answer is not None and self._answer.from_server
        name, top = "chunks" if served else "tok/s", self._scales.tok_s
        return self._strip_lines(name, values, top, figures.number(top or None), width)

    def _memory_strip(self, width: int) -> list[Content]:
        top = self._scales.memory
        values = at_intervals(self._memory.history, MEMORY_INTERVAL_S)
        return self._strip_lines(self._memory.kind, values, top, figures.size(top or None), width)

    def _strip_lines(
        self, name: str, values: list[float], top: float, scale: str, width: int
    ) -> list[Content]:
        room = max(0, width - _LABEL - _SCALE)
        rows = strip_chart(values, top, room, self.strip_height)
        return [
            _label("" if index else name)
            + Content.styled(row, self.side)
            + quiet("▏" if index else f"▏{scale}")
            for index, row in enumerate(rows)
        ]


def _label(name: str) -> Content:
    return quiet(name.ljust(_LABEL))


def ledger_parts(ledger: Ledger | None) -> list[tuple[str, int]]:
    """Return (name, bytes) of each part of the ledger; -1 bytes means not known.

    On a CPU torch does not report its allocator, so all remaining memory is "other".
    """
    if ledger is None:
        return [("weights", -1), ("KV", -1)]
    if ledger.device in ANY_SERVER:
        return []
    parts = [("weights", ledger.weights), ("KV", ledger.kv_cache)]
    if ledger.draft:
        parts.insert(1, ("draft", ledger.draft))
    if ledger.device.startswith("cuda"):
        return [
            *parts,
            ("other", ledger.other_live),
            ("slack", ledger.slack),
            ("non-torch", ledger.non_torch),
            *ledger.reserved_by_device.items(),
        ]
    other = ledger.process - ledger.weights - ledger.draft - ledger.kv_cache
    known = min(ledger.process, ledger.weights, ledger.kv_cache) >= 0 and other >= 0
    return [*parts, ("other", other if known else -1)]
