"""Counts answers that changed between two models; equal accuracies can hide such changes.

Two models can be right equally often but on different questions: their accuracies agree although
many answers differ. Quantized models do that (Dutta et al. 2024, "Accuracy is Not All You Need",
who call such answers flips). Both models are asked the same questions, so the test is McNemar's
(1947) in its exact form: among the questions that only one model answers correctly, is each model
the correct one equally often?
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist


@dataclass(frozen=True)
class Flips:
    """The changed answers of a model against the reference, on the same documents."""

    documents: int
    lost: int
    """Answers that are right in the reference and wrong in this model."""
    gained: int
    """Answers that are wrong in the reference and right in this model."""

    @classmethod
    def between(cls, reference: Sequence[object], model: Sequence[object]) -> Flips:
        """Compare two lists that say for each document whether the model was right.

        Raises ValueError if the lists differ in length or are empty.
        """
        if len(reference) != len(model) or not model:
            raise ValueError(f"{len(reference)} and {len(model)} answers cannot be paired")
        lost = gained = 0
        for before, now in zip(reference, model, strict=True):
            if before != now:
                right = now in (True, "1")
                gained, lost = gained + right, lost + (not right)
        return cls(len(model), lost, gained)

    @property
    def difference(self) -> float:
        """Accuracy of the model minus accuracy of the reference."""
        return (self.gained - self.lost) / self.documents

    @property
    def error(self) -> float:
        """Standard error of the difference, paired (Agresti, "Categorical Data Analysis", 11.1)."""
        changed, net = self.lost + self.gained, self.gained - self.lost
        return float((changed - net * net / self.documents) ** 0.5) / self.documents

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the difference (Agresti and Min 2005).

        Half a document is added to each of the four cells, so that no change at all has a width
        too: few documents without a change do not show that there is none.
        """
        centre, margin = self.centre, self.margin
        return centre - margin, centre + margin

    @property
    def centre(self) -> float:
        """The middle of `interval`, which is a little nearer to 0 than the difference."""
        return (self.gained - self.lost) / (self.documents + 2)

    @property
    def margin(self) -> float:
        """Half the width of `interval`."""
        return NormalDist().inv_cdf(0.975) * self._smoothed_error

    @property
    def detectable(self) -> float:
        """The smallest true difference that this many documents show in four of five cases.

        It holds if as many answers change as did here (power 0.8 at the 0.05 level).
        """
        return (NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(0.8)) * self._smoothed_error

    @property
    def _smoothed_error(self) -> float:
        net, documents = self.gained - self.lost, self.documents + 2
        changed = self.gained + self.lost + 1
        return math.sqrt(changed - net * net / documents) / documents

    @property
    def p(self) -> float:
        """p-value of McNemar's exact test: the chance of such a one-sided change between equals."""
        changed = self.lost + self.gained
        if not changed:
            return 1.0
        from scipy.stats import binomtest

        return float(binomtest(self.lost, changed).pvalue)
