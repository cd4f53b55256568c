"""Which answers a report draws and tables, by variant and by how they ran."""

from __future__ import annotations

import string
from dataclasses import dataclass
from functools import cached_property

from quantchat.document.figures import ORDERS
from quantchat.snapshot.compared_sides import measured_turns
from quantchat.snapshot.schema import AnswerRecord, Snapshot, TurnRecord
from quantchat.statistics.latency import itl_ms
from quantchat.text import one_line
from quantchat.wire.variant import loops_differ


@dataclass(frozen=True)
class Series:
    """The finished answers of one variant that ran in one order."""

    place: int
    """Of the variant among those of the snapshot, from 0: it has its colour and line by it."""
    variant: str
    order: str
    turns: list[int]
    """Where each of `answers` stands among the turns told of, counted from 1."""
    answers: list[AnswerRecord]

    @property
    def name(self) -> str:
        """For a legend: `A: GPTQ 4-bit (in turn)`."""
        return f"{named(self.place, self.variant)} ({ORDERS[self.order]})"

    @cached_property
    def gaps_ms(self) -> list[list[float]]:
        """The inter-token latencies of each answer that has any."""
        return [gaps for answer in self.answers if (gaps := itl_ms(answer.times_ns))]


def reported_turns(snapshot: Snapshot) -> list[TurnRecord]:
    """The turns a report is about: the measured ones, or those of the chat where none is."""
    return measured_turns(snapshot) or snapshot.turns


def all_series(snapshot: Snapshot) -> list[Series]:
    """The finished answers of `reported_turns`, in the order of `places`."""
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
    """Whether there is a measurement of two variants, one against the other."""
    return snapshot.measurement is not None and len(snapshot.shown) == len(set(snapshot.shown)) == 2


def how_compared(snapshot: Snapshot) -> str:
    """What to say beside a ratio of the two sides' speeds: their order, and other decode loops.

    Raises ValueError where there is no measurement.
    """
    if snapshot.measurement is None:
        raise ValueError("the snapshot holds no measurement")
    order = ORDERS[snapshot.measurement.order]
    ran = {variant.label: variant.resolved for variant in snapshot.variants}
    first, last = (ran.get(label) for label in (snapshot.shown[0], snapshot.shown[-1]))
    return f"{order}, by different decode loops" if loops_differ(first, last) else order


def places(snapshot: Snapshot) -> dict[str, int]:
    """Each variant's place by its label: left, right, then any other."""
    labels = [
        *snapshot.shown,
        *(variant.label for variant in snapshot.variants),
        *(answer.variant for turn in snapshot.turns for answer in turn.answers),
    ]
    return {label: place for place, label in enumerate(dict.fromkeys(labels))}


def letter(place: int) -> str:
    """A and B for the two sides, as in the tables of ratios; then C, D and so on."""
    letters = string.ascii_uppercase
    return letters[place] if place < len(letters) else f"no. {place + 1}"


def named(place: int, label: str) -> str:
    """`A: GPTQ 4-bit`, on one line, never longer than a legend has room for."""
    short = one_line(label).translate(_NOT_XML)
    return f"{letter(place)}: {short if len(short) <= _LABEL else short[: _LABEL - 1] + '…'}"


_LABEL = 48
"""Characters of a label in a plot."""

# XML 1.0, production 2: what no SVG may hold, besides what is neutralised already.
_NOT_XML = {0xFFFE: "⟨FFFE⟩", 0xFFFF: "⟨FFFF⟩"}
