"""Answers that changed: what an accuracy hides.

Two models can be right equally often on different questions, so that their accuracies agree while
many answers do not: quantized models do just that (Dutta et al. 2024, "Accuracy is Not All You
Need", who call them flips). Both models are asked the same questions, so the test is McNemar's
(1947) in its exact form: of the questions on which only one is right, is each as often that one?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Flips:
    """A model against the reference, on the same documents."""

    documents: int
    lost: int
    """Right in the reference, wrong here."""
    gained: int
    """Wrong in the reference, right here."""

    @classmethod
    def between(cls, reference: Sequence[object], model: Sequence[object]) -> Flips:
        """Of whether each was right, document by document.

        Raises ValueError where they are not equally many, or none.
        """
        if len(reference) != len(model) or not model:
            raise ValueError(f"{len(reference)} and {len(model)} answers are no pairs")
        lost = gained = 0
        for before, now in zip(reference, model, strict=True):
            if before != now:
                right = now in (True, "1")
                gained, lost = gained + right, lost + (not right)
        return cls(len(model), lost, gained)

    @property
    def difference(self) -> float:
        """Accuracy here minus that of the reference."""
        return (self.gained - self.lost) / self.documents

    @property
    def error(self) -> float:
        """Standard error of the difference, paired (Agresti, "Categorical Data Analysis", 11.1)."""
        changed, net = self.lost + self.gained, self.gained - self.lost
        return float((changed - net * net / self.documents) ** 0.5) / self.documents

    @property
    def p(self) -> float:
        """Chance of so one-sided a change if neither were better: McNemar's exact test."""
        changed = self.lost + self.gained
        if not changed:
            return 1.0
        from scipy.stats import binomtest

        return float(binomtest(self.lost, changed).pvalue)
