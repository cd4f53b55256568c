"""Compute perplexity and divergence from the arrays that the job `score` writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantchat.statistics import quality
from quantchat.statistics.quality import Divergence, Quantity


@dataclass(frozen=True)
class Figures:
    """The arrays of one model in `folder`, with one item per scored token in order."""

    folder: Path
    windows: int
    """Number of equally long windows of scored tokens."""
    depth_ends: tuple[int, ...] = ()
    """See `quality.depth_ends`; empty if the tokens before the scored ones were not compared."""

    def read(self, name: str) -> Any:
        """Return the array `name`, of shape (scored tokens,)."""
        import numpy

        return numpy.fromfile(self.folder / name)

    @property
    def perplexity(self) -> Quantity:
        """Perplexity of this model."""
        return quality.perplexity(self.read("nll"), self.windows)

    def divergence_from(self, other: Figures, name: str) -> Divergence:
        """Return the divergence of this model from the reference `other`.

        The job of this model computed it from the stored logits of `other`, as `name`.
        """
        return self._compared(other, self, f"{name}.forward", f"{name}.early.forward")

    def divergence_of(self, other: Figures, name: str) -> Divergence:
        """Return the divergence of `other` from this model as the reference.

        The job of this model computed it from the stored logits of `other`, as `name`.
        """
        return other._compared(self, self, f"{name}.backward", f"{name}.early.backward")

    def _compared(self, reference: Figures, measured: Figures, kld: str, early: str) -> Divergence:
        """Return the divergence from `reference`; `measured` has the arrays `kld` and `early`."""
        depths = self.depth_ends if (measured.folder / early).is_file() else ()
        return quality.divergence(
            nll=self.read("nll"),
            reference_nll=reference.read("nll"),
            kld=measured.read(kld),
            top1_agrees=self.read("top") == reference.read("top"),
            windows=self.windows,
            kld_early=measured.read(early) if depths else None,
            depth_ends=depths,
        )
