"""The lists of figures that are compared.

A line in `FIGURES` adds a figure of measurements everywhere: `compare`, gates and their help, JSON,
reports and CSV. A line in `QUALITY` adds a figure of `score`, `eval` or `load` to gates and their
help.

Read the lists as `figures.FIGURES` and `figures.QUALITY` where they are used, and do not import
them by name: then a figure that is added later, as by a test, is seen everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from quantchat.snapshot.schema import AnswerRecord, VariantRecord
from quantchat.wire.variant import Ledger


@dataclass(frozen=True)
class AnswerFigure:
    """A figure of each answer. It varies between answers, so it has a confidence interval."""

    name: str
    """Name in gates, JSON and CSV."""
    title: str
    """Name for the user, in tables and reports."""
    unit: str
    less_is_better: bool | None
    """None if neither more nor less is better."""
    read: Callable[[AnswerRecord], float | None]
    """Returns the figure of an answer, a value above 0, or None if the answer does not have it."""
    applies: Callable[[AnswerRecord], bool] | None = None
    """Returns whether the figure is worth showing for an answer, as TTFA is for one with thoughts;
    None: for any answer."""


@dataclass(frozen=True)
class ProcessFigure:
    """A figure of a variant's process, such as memory: one value for a run.

    An `exact` figure is counted, such as the bytes of the weights, and is the same in each process
    of the variant. Any other figure is read once, so its variation between processes is not known.
    To read it after every answer would not help: the process is the same each time.
    """

    name: str
    """Name in gates, JSON and CSV."""
    title: str
    """Name for the user, in tables and reports."""
    unit: str
    less_is_better: bool
    exact: bool
    read: Callable[[VariantRecord, Ledger | None], float | None]
    """Returns the figure from the variant and its newest ledger: above 0, or None if not known."""


Kind = Literal["run", "score", "eval", "load"]
"""The command that measures a figure. `quantchat rerun` and the screen measure the same figures as
`quantchat run`."""


@dataclass(frozen=True)
class QualityFigure:
    """A figure of a whole model. `quality_gates.QualityColumn.figure_of` reads its value."""

    name: str
    title: str
    kind: Kind


def _end_to_end_ms(answer: AnswerRecord) -> float | None:
    if not answer.times_ns or not answer.received_ns:
        return None
    return (answer.times_ns[-1] - answer.received_ns) / 1e6


def _length(answer: AnswerRecord) -> float | None:
    return answer.timing.output_tokens if answer.timing.output_tokens > 0 else None


def _energy(answer: AnswerRecord) -> float | None:
    return answer.energy.per_token(len(answer.ids)) if answer.energy else None


def _itl_p95(answer: AnswerRecord) -> float | None:
    return answer.timing.itl_ms.p95 if answer.timing.itl_ms else None


def _itl_p99(answer: AnswerRecord) -> float | None:
    return answer.timing.itl_ms.p99 if answer.timing.itl_ms else None


def _acceptance(answer: AnswerRecord) -> float | None:
    return (answer.drafts.acceptance or None) if answer.drafts else None


def _mean_length(answer: AnswerRecord) -> float | None:
    return answer.drafts.mean_length if answer.drafts else None


def _is_drafted(answer: AnswerRecord) -> bool:
    return answer.drafts is not None


def _weights(variant: VariantRecord, ledger: Ledger | None) -> float | None:
    return ledger.weights if ledger and ledger.weights > 0 else None


def _bits(variant: VariantRecord, ledger: Ledger | None) -> float | None:
    return variant.model_info.bits_per_weight or None if variant.model_info else None


def _process(variant: VariantRecord, ledger: Ledger | None) -> float | None:
    # Prefer `variant.memory`, whose source is recorded: the ledger may lack the process total.
    if variant.memory is not None and variant.memory.bytes:
        return variant.memory.bytes
    return ledger.process if ledger and ledger.process > 0 else None


FIGURES: tuple[AnswerFigure | ProcessFigure, ...] = (
    AnswerFigure("ttft_ms", "TTFT", "ms", True, lambda a: a.timing.ttft_ms),
    AnswerFigure(
        "ttfa_ms", "TTFA", "ms", True, lambda a: a.timing.ttfa_ms, lambda a: bool(a.thoughts)
    ),
    AnswerFigure("tpot_ms", "TPOT", "ms", True, lambda a: a.timing.tpot_ms),
    AnswerFigure(
        "decode_tps", "decode throughput", "tok/s", False, lambda a: a.timing.decode_tok_s
    ),
    AnswerFigure("itl_p95_ms", "ITL p95", "ms", True, _itl_p95),
    AnswerFigure("itl_p99_ms", "ITL p99", "ms", True, _itl_p99),
    AnswerFigure(
        "prefill_tps", "prefill throughput", "tok/s", False, lambda a: a.timing.prefill_tok_s
    ),
    AnswerFigure("end_to_end_ms", "end to end", "ms", True, _end_to_end_ms),
    AnswerFigure("draft_acceptance", "draft acceptance", "%", False, _acceptance, _is_drafted),
    AnswerFigure(
        "acceptance_length", "mean acceptance length", "tokens", False, _mean_length, _is_drafted
    ),
    AnswerFigure("answer_tokens", "answer length", "tokens", None, _length),
    AnswerFigure("j_per_token", "energy", "J/token", True, _energy),
    ProcessFigure("weights_bytes", "memory, weights", "B", True, True, _weights),
    ProcessFigure("bits_per_weight", "bits per weight as loaded", "bit", True, True, _bits),
    ProcessFigure("process_bytes", "memory, process", "B", True, False, _process),
)
"""The figures of measurements, in the order in which they are shown."""


QUALITY: tuple[QualityFigure, ...] = (
    QualityFigure("kld", "mean KLD from the reference, nats", "score"),
    QualityFigure("kld_p99", "99th percentile of the KLD, nats", "score"),
    QualityFigure("perplexity", "perplexity", "score"),
    QualityFigure("top1_agreement", "top-1 agreement, 0 to 1", "score"),
    QualityFigure("accuracy", "accuracy over all tasks, 0 to 1", "eval"),
    QualityFigure("flips", "share of answers that changed, 0 to 1", "eval"),
    QualityFigure(
        "output_tps",
        "highest output throughput at any number of simultaneous requests, tok/s",
        "load",
    ),
    QualityFigure(
        "goodput_per_s",
        "highest goodput at any number of simultaneous requests, requests per second",
        "load",
    ),
)
"""The figures of scores, evaluations and load tests, for gates."""


def by_name() -> dict[str, AnswerFigure | ProcessFigure]:
    """Return the figures of measurements by the names that gates, JSON and CSV use."""
    return {figure.name: figure for figure in FIGURES}


def kinds() -> dict[str, Kind]:
    """Return the command that measures each figure, by the figure's name."""
    return {**dict.fromkeys(by_name(), "run"), **{one.name: one.kind for one in QUALITY}}
