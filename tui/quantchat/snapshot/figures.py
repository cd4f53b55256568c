"""The list of figures that are compared.

A line in `FIGURES` adds a figure everywhere: `compare`, its gates and their help, JSON, reports and
CSV. Readers take it from this module when they run, as `figures.FIGURES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from quantchat.snapshot.schema import AnswerRecord, VariantRecord
from quantchat.wire.variant import Ledger


@dataclass(frozen=True)
class AnswerFigure:
    """A figure of each answer. It scatters, and has a confidence interval."""

    name: str
    title: str
    unit: str
    less_is_better: bool
    read: Callable[[AnswerRecord], float | None]
    """Above 0, or None if the answer has no such figure."""


@dataclass(frozen=True)
class ProcessFigure:
    """A figure of a variant's process, such as memory: one value for a run.

    An `exact` figure is counted. Any other is read once, so its scatter is not known: to read it
    after every answer would not help, as it is the same process each time.
    """

    name: str
    title: str
    unit: str
    less_is_better: bool
    exact: bool
    read: Callable[[VariantRecord, Ledger | None], float | None]
    """From the variant and its newest ledger: above 0, or None if not known."""


def _end_to_end_ms(answer: AnswerRecord) -> float | None:
    if not answer.times_ns or not answer.received_ns:
        return None
    return (answer.times_ns[-1] - answer.received_ns) / 1e6


def _energy(answer: AnswerRecord) -> float | None:
    return answer.energy.per_token(len(answer.ids)) if answer.energy else None


def _weights(variant: VariantRecord, ledger: Ledger | None) -> float | None:
    return ledger.weights if ledger and ledger.weights > 0 else None


def _process(variant: VariantRecord, ledger: Ledger | None) -> float | None:
    # If NVML does not report the process, its memory has another source, with a label.
    if variant.memory is not None and variant.memory.bytes:
        return variant.memory.bytes
    return ledger.process if ledger and ledger.process > 0 else None


FIGURES: tuple[AnswerFigure | ProcessFigure, ...] = (
    AnswerFigure("ttft_ms", "TTFT", "ms", True, lambda a: a.timing.ttft_ms),
    AnswerFigure("tpot_ms", "TPOT", "ms", True, lambda a: a.timing.tpot_ms),
    AnswerFigure(
        "decode_tps", "decode throughput", "tok/s", False, lambda a: a.timing.decode_tok_s
    ),
    AnswerFigure("end_to_end_ms", "end to end", "ms", True, _end_to_end_ms),
    AnswerFigure("j_per_token", "energy", "J/token", True, _energy),
    ProcessFigure("weights_bytes", "memory, weights", "B", True, True, _weights),
    ProcessFigure("process_bytes", "memory, process", "B", True, False, _process),
)


def by_name() -> dict[str, AnswerFigure | ProcessFigure]:
    """Return the figures by the names that gates, JSON and CSV use."""
    return {figure.name: figure for figure in FIGURES}
