"""What the job `score` wrote of one model, made into figures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantchat.statistics import quality
from quantchat.statistics.quality import Divergence, Quantity


@dataclass(frozen=True)
class Figures:
    """The arrays of one model, in `folder`: an item for each scored token, in order."""

    folder: Path
    windows: int
    """How many equally long windows they come from."""

    def read(self, name: str) -> Any:
        """The array of this name."""
        import numpy

        return numpy.fromfile(self.folder / name)

    @property
    def perplexity(self) -> Quantity:
        """Of this model."""
        return quality.perplexity(self.read("nll"), self.windows)

    def seen_from(self, other: Figures, name: str) -> Divergence:
        """This model seen from `other`, which had this `name` when this one was read."""
        return self._compared(other, self.read(f"{name}.forward"))

    def seeing(self, other: Figures, name: str) -> Divergence:
        """`other`, which had this `name`, seen from this model."""
        return other._compared(self, self.read(f"{name}.backward"))

    def _compared(self, reference: Figures, kld: Any) -> Divergence:
        return quality.divergence(
            nll=self.read("nll"),
            reference_nll=reference.read("nll"),
            kld=kld,
            same_top=self.read("top") == reference.read("top"),
            windows=self.windows,
        )
