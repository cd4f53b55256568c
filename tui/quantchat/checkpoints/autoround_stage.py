"""The build stages that quantize with AutoRound, to a checkpoint or to a GGUF file.

The input of both is a model in full precision.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from quantchat.checkpoints.full_precision import Weights
from quantchat.checkpoints.gptq_stage import Grouped, QuantizeCalibrated
from quantchat.checkpoints.stages import Stage
from quantchat.engines.autoround import AUTO_ROUND, GPTQ_FORMAT
from quantchat.engines.gguf import GGUF_MAKERS
from quantchat.engines.quantize import QuantizeAutoRound, QuantizeGguf
from quantchat.engines.variant import VariantBase
from quantchat.wire.jobs import (
    AutoRoundSettings,
    GgufSettings,
    QuantizeAutoRoundJob,
    QuantizeGgufJob,
)


@dataclass(frozen=True)
class QuantizeWithAutoRound(Grouped):
    """The stage that quantizes with AutoRound."""

    quantize: QuantizeAutoRound
    versioned = (AUTO_ROUND.package, "torch", "transformers")
    optional = (AUTO_ROUND,)
    title = "rounding block"

    @property
    def slug(self) -> str:
        """The model's short name, the format if it is not GPTQ's, the bits and the group size."""
        form = "".join(f"{name.removeprefix('auto_')}-" for name in self._format.values())
        return self.model_slug(f"autoround-{form}")

    @property
    def inputs(self) -> dict[str, object]:
        """The inputs of every stage that quantizes with a calibration set, and the format."""
        return {**super().inputs, **self._format}

    @property
    def _format(self) -> dict[str, str]:
        """The format, as an entry of `inputs`.

        Empty for GPTQ's format: the names of older checkpoints, which all have this format, were
        computed without this entry.
        """
        return {} if self.quantize.format == GPTQ_FORMAT else {"format": self.quantize.format}

    @property
    def settings(self) -> AutoRoundSettings:
        """AutoRound's settings."""
        asked = {one.name: getattr(self.quantize, one.name) for one in fields(AutoRoundSettings)}
        return AutoRoundSettings(**asked)

    def job(self, **common: Any) -> QuantizeAutoRoundJob:
        """Return the job in which a worker quantizes with AutoRound."""
        return QuantizeAutoRoundJob(settings=self.settings, format=self.quantize.format, **common)


@dataclass(frozen=True)
class QuantizeToGguf(QuantizeCalibrated):
    """The stage that makes a GGUF file with AutoRound."""

    quantize: QuantizeGguf
    versioned = (*(library.package for library in GGUF_MAKERS), "torch", "transformers")
    optional = GGUF_MAKERS
    key = "quantizing to GGUF"
    title = "rounding block"

    @property
    def slug(self) -> str:
        """The model's short name and the format."""
        return f"{self.weights.source.slug}-autoround-{self.quantize.format}"

    @property
    def settings(self) -> GgufSettings:
        """AutoRound's settings for a GGUF file."""
        return GgufSettings(self.quantize.format, self.quantize.iters)

    def job(self, **common: Any) -> QuantizeGgufJob:
        """Return the job in which a worker makes the GGUF file."""
        return QuantizeGgufJob(settings=self.settings, **common)


def stage_of(weights: Weights, spec: VariantBase) -> Stage:
    """Return the stage that builds the checkpoint of `spec` from `weights`."""
    quantize = spec.calibration_table
    if isinstance(quantize, QuantizeGguf):
        return QuantizeToGguf(weights, quantize)
    # A variant without the table [variants.quantize] loads a finished checkpoint, without a stage.
    assert isinstance(quantize, QuantizeAutoRound)  # noqa: S101
    return QuantizeWithAutoRound(weights, quantize)
