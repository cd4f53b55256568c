"""Counts answers that changed between two models; equal accuracies can hide such changes.

Two models can be right equally often but on different questions: their accuracies agree although
many answers differ. Quantized models behave like that (Dutta et al. 2024, "Accuracy is Not All You
Need", who call such answers flips). Both models are asked the same questions, so the test is
McNemar's (1947) in its exact form: among the questions that only one model answers correctly, is
each model the correct one equally often?

Questions about the same passage are not independent: a model that misreads the passage gets several
of them wrong. So whole passages are the units. Standard errors are cluster-robust (Miller 2024,
"Adding Error Bars to Evals", arXiv:2411.00640, section 2.2), but never smaller than those of
independent questions. The test is a randomization test that swaps the two models in whole passages;
with one question in each passage it is McNemar's.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import NormalDist
from typing import NamedTuple


def design_effect(groups: Sequence[tuple[int, int]], squares: int) -> float:
    """Return the variance of a mean with passages as units ÷ that with questions as units.

    Each question has a value, e.g. 1 for a right answer. Each group is a passage: the number of its
    questions, and the sum of their values; `squares` is the sum of all squared values. The result
    is never below 1, because the estimate from a few passages is too rough to narrow an interval.
    It is also 1 for a single passage, if each question is a passage of its own, or if nothing
    varies.
    """
    questions = sum(size for size, _ in groups)
    count, mean = len(groups), sum(total for _, total in groups) / questions
    independent = squares - questions * mean**2
    if not 1 < count < questions or independent <= 0:
        return 1.0
    clustered = (
        math.fsum((total - size * mean) ** 2 for size, total in groups) * count / (count - 1)
    )
    return max(1.0, clustered / independent)


class Passage(NamedTuple):
    """The changed answers to the questions about one passage; the counts are those of `Flips`."""

    questions: int
    lost: int
    gained: int


@dataclass(frozen=True)
class Flips:
    """The changed answers of a model against the reference, on the same questions."""

    questions: int
    lost: int
    """Answers that are right in the reference and wrong in this model."""
    gained: int
    """Answers that are wrong in the reference and right in this model."""
    passages: tuple[Passage, ...] = field(default=(), compare=False, repr=False)
    """The same counts for each passage; may be empty if no two questions share a passage."""

    @classmethod
    def between(
        cls,
        reference: Sequence[object],
        model: Sequence[object],
        passages: Sequence[Hashable] = (),
    ) -> Flips:
        """Compare two lists that say for each question whether the model was right (True or "1").

        `passages` names the passage of each question; empty if no two questions share one. Raises
        ValueError if the lists differ in length or are empty.
        """
        if len(reference) != len(model) or not model:
            raise ValueError(f"{len(reference)} and {len(model)} answers cannot be paired")
        groups: dict[Hashable, list[int]] = {}
        named = passages or range(len(model))
        for before, now, name in zip(reference, model, named, strict=True):
            group = groups.setdefault(name, [0, 0, 0])
            group[0] += 1
            if before != now:
                group[2 if now in (True, "1") else 1] += 1
        parts = [Passage(*group) for group in groups.values()]
        return cls.together(
            [cls(part.questions, part.lost, part.gained, (part,)) for part in parts]
        )

    @classmethod
    def together(cls, parts: Sequence[Flips]) -> Flips:
        """Return the sums over `parts`, such as tasks, no two of which share a passage."""
        return cls(
            sum(one.questions for one in parts),
            sum(one.lost for one in parts),
            sum(one.gained for one in parts),
            tuple(passage for one in parts for passage in one.passages),
        )

    @property
    def clusters(self) -> int:
        """Number of independent units: passages, or questions if no two share a passage."""
        return len(self.passages) or self.questions

    @cached_property
    def design_effect(self) -> float:
        """The function `design_effect`, applied to the difference of the accuracies."""
        groups = [(one.questions, one.gained - one.lost) for one in self.passages]
        return design_effect(groups, self.lost + self.gained) if groups else 1.0

    @property
    def changes_design_effect(self) -> float:
        """The function `design_effect`, applied to the share of changed answers."""
        groups = [(one.questions, one.gained + one.lost) for one in self.passages]
        return design_effect(groups, self.lost + self.gained) if groups else 1.0

    @property
    def difference(self) -> float:
        """Accuracy of the model minus accuracy of the reference."""
        return (self.gained - self.lost) / self.questions

    @property
    def error(self) -> float:
        """Standard error of the difference, paired (Agresti, "Categorical Data Analysis", 11.1)."""
        changed, net = self.lost + self.gained, self.gained - self.lost
        variance = (changed - net * net / self.questions) * self.design_effect
        return float(variance**0.5) / self.questions

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the difference (Agresti and Min 2005).

        Half a question is added to each cell of the 2 × 2 table (right or wrong in each model). So
        the interval has a width even if no answer changed: a few questions without a change do not
        prove that no answer would change.
        """
        centre, margin = self.centre, self.margin
        return centre - margin, centre + margin

    @property
    def centre(self) -> float:
        """The middle of `interval`, which is slightly nearer to 0 than `difference`."""
        return (self.gained - self.lost) / (self.questions + 2)

    @property
    def margin(self) -> float:
        """Half the width of `interval`."""
        return self._quantile(0.975) * self._smoothed_error

    @property
    def detectable(self) -> float:
        """The smallest true difference that a test with this many questions shows with power 0.8.

        The significance level is 0.05. Assumes that the same share of answers changes as here.
        """
        return (self._quantile(0.975) + self._quantile(0.8)) * self._smoothed_error

    def _quantile(self, share: float) -> float:
        """Return the quantile `share` of the normal distribution; of Student's t with passages."""
        if self.clusters == self.questions or self.clusters < 2:
            return NormalDist().inv_cdf(share)
        from scipy.stats import t

        return float(t.ppf(share, self.clusters - 1))

    @property
    def _smoothed_error(self) -> float:
        net, questions = self.gained - self.lost, self.questions + 2
        changed = self.gained + self.lost + 1
        return math.sqrt((changed - net * net / questions) * self.design_effect) / questions

    @property
    def p(self) -> float:
        """p-value of McNemar's exact test.

        It is the probability that for two equally good models the numbers of lost and gained
        answers differ at least as much as here.
        """
        changed = self.lost + self.gained
        if not changed:
            return 1.0
        if self.clusters < self.questions:
            return self._p_by_passages
        from scipy.stats import binomtest

        return float(binomtest(self.lost, changed).pvalue)

    @cached_property
    def _p_by_passages(self) -> float:
        """Exact p-value of the randomization test that swaps the two models in whole passages."""
        import numpy

        # The probabilities of all possible sums over the passages so far, lowest sum first.
        chances = numpy.ones(1)
        for passage in self.passages:
            if net := abs(passage.gained - passage.lost):
                more = numpy.zeros(2 * net)
                chances = (numpy.append(chances, more) + numpy.append(more, chances)) / 2
        sums = numpy.arange(len(chances)) - len(chances) // 2
        found = abs(self.gained - self.lost)
        return min(1.0, float(chances[abs(sums) >= found].sum()))
