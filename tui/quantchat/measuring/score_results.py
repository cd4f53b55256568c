"""Compute perplexity, KLD and top-1 agreement from the arrays that the job `score` writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantchat.statistics import quality
from quantchat.statistics.quality import Divergence, Quantity


@dataclass(frozen=True)
class Figures:
    """The arrays of one scored model: files in `folder`, with one item per scored token."""

    folder: Path
    windows: int
    """Number of equally long windows of scored tokens."""
    depth_ends: tuple[int, ...] = ()
    """Boundaries of the parts of the KLD by depth, from `quality.depth_ends`; empty if there is no
    KLD by depth."""

    def read(self, name: str) -> Any:
        """Return the array `name`, of shape (scored tokens,)."""
        import numpy

        return numpy.fromfile(self.folder / name)

    @property
    def perplexity(self) -> Quantity:
        """Perplexity of this model."""
        return quality.perplexity(self.read("nll"), self.windows)

    def divergence_from(self, other: Figures, name: str) -> Divergence:
        """Return how far this model's predictions differ from those of the reference `other`.

        The job of this model has computed the KLD from the stored logits of `other`. The names of
        its files begin with `name`.
        """
        return self._compared(other, self, f"{name}.forward", f"{name}.early.forward")

    def divergence_of(self, other: Figures, name: str) -> Divergence:
        """Return how far the predictions of `other` differ, with this model as the reference.

        The job of this model has computed the KLD from the stored logits of `other`. The names of
        its files begin with `name`.
        """
        return other._compared(self, self, f"{name}.backward", f"{name}.early.backward")

    def _compared(self, reference: Figures, measured: Figures, kld: str, early: str) -> Divergence:
        """Compare this model with `reference`.

        `measured` is the model whose folder has the KLD: in the file `kld` for the scored tokens,
        in the file `early` for the tokens before them.
        """
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
