"""The answers of a report as series: one for each variant and each order of answering.

The order is `together` or `in-turn` (one at a time).
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from functools import cached_property

from quantchat.document.figures import ORDERS, SHORT_ORDERS
from quantchat.snapshot.compared_sides import measured_turns
from quantchat.snapshot.schema import AnswerRecord, Snapshot, TurnRecord
from quantchat.statistics.latency import itl_ms
from quantchat.text import one_line
from quantchat.wire.variant import decode_modes_differ


@dataclass(frozen=True)
class Series:
    """The finished answers of one variant that ran in one order."""

    place: int
    """Position of the variant in the snapshot, from 0. It decides colour and line."""
    variant: str
    order: str
    turns: list[int]
    """For each answer, the number of its turn among `reported_turns`, from 1."""
    answers: list[AnswerRecord]

    @property
    def name(self) -> str:
        """Return the name for a legend: `A: GPTQ 4-bit (one at a time)`."""
        return f"{legend_label(self.place, self.variant)} ({SHORT_ORDERS[self.order]})"

    @cached_property
    def gaps_ms(self) -> list[list[float]]:
        """Return the inter-token latencies in ms of each answer that has any."""
        return [gaps for answer in self.answers if (gaps := itl_ms(answer.times_ns))]


def reported_turns(snapshot: Snapshot) -> list[TurnRecord]:
    """Return the turns of the measurement, or if there is none, the turns of the chat."""
    return measured_turns(snapshot) or snapshot.turns


def all_series(snapshot: Snapshot) -> list[Series]:
    """Return the finished answers of `reported_turns` as series, sorted by `places`."""
    known = places(snapshot)
    found: dict[tuple[int, str], Series] = {}
    for number, turn in enumerate(reported_turns(snapshot), start=1):
        for answer in turn.answers:
            if answer.state == "done":
                place = known[answer.variant]
                series = found.setdefault(
                    (place, answer.order), Series(place, answer.variant, answer.order, [], [])
                )
                series.turns.append(number)
                series.answers.append(answer)
    return [found[key] for key in sorted(found)]


def has_two_sides(snapshot: Snapshot) -> bool:
    """Return whether the snapshot has a measurement of two different variants."""
    return snapshot.measurement is not None and len(snapshot.shown) == len(set(snapshot.shown)) == 2


def how_compared(snapshot: Snapshot) -> str:
    """Return how the two sides ran, as a remark beside a ratio.

    The remark names the order, and says if the sides had different decode modes. Raises ValueError
    if the snapshot has no measurement.
    """
    if snapshot.measurement is None:
        raise ValueError("the snapshot holds no measurement")
    order = ORDERS[snapshot.measurement.order]
    ran = {variant.label: variant.model_info for variant in snapshot.variants}
    first, last = (ran.get(label) for label in (snapshot.shown[0], snapshot.shown[-1]))
    return f"{order}, different decode modes" if decode_modes_differ(first, last) else order


def places(snapshot: Snapshot) -> dict[str, int]:
    """Return the position of each variant, from 0, by its label: left, right, then the others."""
    labels = [
        *snapshot.shown,
        *(variant.label for variant in snapshot.variants),
        *(answer.variant for turn in snapshot.turns for answer in turn.answers),
    ]
    return {label: place for place, label in enumerate(dict.fromkeys(labels))}


def letter(place: int) -> str:
    """Return the letter of the variant at `place`: A and B for the two sides, then C, D etc."""
    letters = string.ascii_uppercase
    return letters[place] if place < len(letters) else f"no. {place + 1}"


def legend_label(place: int, label: str) -> str:
    """Return `A: GPTQ 4-bit`, on one line and short enough for a legend."""
    short = one_line(label).translate(_NOT_XML)
    return f"{letter(place)}: {short if len(short) <= _LABEL else short[: _LABEL - 1] + '…'}"


_LABEL = 48
"""Most characters of a label in a plot."""

# Characters that `one_line` does not replace, but that XML 1.0 (production 2) and so SVG forbid.
_NOT_XML = {0xFFFE: "⟨FFFE⟩", 0xFFFF: "⟨FFFF⟩"}
