"""Checks whether the figures of a measurement are steady over the rounds.

A confidence interval covers only the variation that was sampled; it does not say whether the
machine was steady. So this module reports answers whose figures are far from those of the other
answers to the same prompt, and figures that vary more from round to round than they do on a steady
machine.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from quantchat.measuring.rounds import MeasuredTurn
from quantchat.session.conversation import Answer
from quantchat.statistics.intervals import variation
from quantchat.statistics.latency import decode_throughput, ttft_ms

OUTLIER = 1.5
"""An answer is an outlier if its figure is more than this many times the median of the answers to
the same prompt, or less than the median divided by this number."""

LEAST_ROUNDS = 3
"""Fewest rounds in which an outlier can be found: of two values, either may be the odd one."""

FEW_ROUNDS = {2: 2.0, 3: 1.4}
"""Number of rounds → factor by which `CheckedFigure.most_variation` is multiplied: the coefficient
of variation of so few values is often large by chance."""


@dataclass(frozen=True)
class CheckedFigure:
    """A figure of an answer, and its largest normal variation between rounds."""

    title: str
    most_variation: float
    """Largest coefficient of variation, over the rounds of one prompt, that gives no warning."""
    read: Callable[[Answer], float | None]
    """Returns the figure of an answer; None if the answer does not have it."""


def _end_to_end(answer: Answer) -> float | None:
    if not answer.times_ns or not answer.received_ns:
        return None
    return (answer.times_ns[-1] - answer.received_ns) / 1e6


def _energy(answer: Answer) -> float | None:
    return answer.energy.per_token(len(answer.ids)) if answer.energy else None


FIGURES = (
    CheckedFigure("TTFT", 0.10, lambda a: ttft_ms(a.received_ns, a.times_ns)),
    # TPOT is the inverse of throughput, so one warning is enough for both.
    CheckedFigure(
        "decode throughput", 0.05, lambda a: decode_throughput(a.times_ns, a.reported_tokens)
    ),
    CheckedFigure("end to end", 0.05, _end_to_end),
    CheckedFigure("energy", 0.10, _energy),
)
"""The figures that are checked. TTFT and energy may vary more than the others: TTFT is a single
time, and energy comes from a counter that moves in steps, but a throughput is a mean over many
tokens."""


def warnings(measured: Sequence[MeasuredTurn]) -> list[str]:
    """Return warnings about figures that varied and about outliers.

    For each side and figure there is at most one line of either kind, which names all prompts
    concerned. With a line for each prompt, an unsteady machine would give so many lines that they
    hide other warnings.
    """
    labels = sorted({label for one in measured for label in one.turn.answers})
    return [line for label in labels for line in _of_side(label, measured)]


def _of_side(label: str, measured: Sequence[MeasuredTurn]) -> Iterator[str]:
    lines: list[str] = []
    for figure in FIGURES:
        if figure.title == "end to end" and lines:
            continue  # TTFT or throughput, which are parts of this figure, gave a warning already
        rounds = _by_task(label, figure, measured)
        lines += _outliers(label, figure, rounds)
        lines += _unsteady(label, figure, rounds)
    yield from lines


ValuesByRound = dict[int, dict[int, float]]
"""One figure of all answers of a side: number of the prompt → round → value."""


def _by_task(label: str, figure: CheckedFigure, measured: Sequence[MeasuredTurn]) -> ValuesByRound:
    rounds: ValuesByRound = {}
    lengths: dict[int, set[int]] = {}
    for one in measured:
        answer = one.turn.answers.get(label)
        value = figure.read(answer) if answer is not None and answer.failure is None else None
        if answer is not None and value is not None and value > 0:
            rounds.setdefault(one.task + 1, {})[one.round] = value
            lengths.setdefault(one.task + 1, set()).add(answer.output_tokens)
    if figure.title == "end to end":  # answers of different length take different times
        return {task: values for task, values in rounds.items() if len(lengths[task]) == 1}
    return rounds


def _is_outlier(value: float, median: float) -> bool:
    return max(value / median, median / value) > OUTLIER


def _outliers(label: str, figure: CheckedFigure, rounds: ValuesByRound) -> list[str]:
    """Remove outliers from `rounds`, if they are few; return a warning about them."""
    far: list[tuple[float, str]] = []
    for task, values in sorted(rounds.items()):
        if len(values) < LEAST_ROUNDS:
            continue
        median = statistics.median(values.values())
        odd = [number for number, value in values.items() if _is_outlier(value, median)]
        if len(odd) > max(1, len(values) // 4):
            continue  # too many for outliers: the figure is unsteady
        for number in odd:
            times = values.pop(number) / median
            far.append((max(times, 1 / times), f"prompt {task} round {number} ({times:.1f} times)"))
    if not far:
        return []
    worst = [where for _, where in sorted(far, reverse=True)]
    more = f" and {len(worst) - 3} more" if len(worst) > 3 else ""
    return [f"{label}: {figure.title} far from the prompt's median in {', '.join(worst[:3])}{more}"]


def _unsteady(label: str, figure: CheckedFigure, rounds: ValuesByRound) -> list[str]:
    spreads = {}
    for task, values in sorted(rounds.items()):
        spread = variation(values.values())
        most = figure.most_variation * FEW_ROUNDS.get(len(values), 1.0)
        if spread is not None and spread > most:
            spreads[task] = spread
    if not spreads:
        return []
    percents = [f"{spread:.0%}" for spread in sorted(spreads.values())]
    by = percents[0] if percents[0] == percents[-1] else f"{percents[0]} to {percents[-1]}"
    return [
        f"{label}, prompt {', '.join(map(str, spreads))}: {figure.title} varied by {by} between "
        f"rounds (coefficient of variation; more than {figure.most_variation:.0%} is unusual)"
    ]
