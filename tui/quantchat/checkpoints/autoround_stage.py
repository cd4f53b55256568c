"""The stage from a model in full precision to an AutoRound checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from quantchat.checkpoints.full_precision import Weights
from quantchat.checkpoints.gptq_stage import Calibrated
from quantchat.checkpoints.stages import Stage
from quantchat.engines.autoround import AUTO_ROUND, GPTQ_FORMAT
from quantchat.engines.quantize import QuantizeAutoRound
from quantchat.engines.variant import VariantBase
from quantchat.wire.jobs import AutoRoundSettings, QuantizeAutoRoundJob


@dataclass(frozen=True)
class QuantizeWithAutoRound(Calibrated):
    """The stage that quantizes with AutoRound."""

    quantize: QuantizeAutoRound
    versioned = (AUTO_ROUND.package, "torch", "transformers")
    optional = (AUTO_ROUND,)
    title = "rounding block"

    @property
    def slug(self) -> str:
        """The model's slug, the format if it is not GPTQ's, the bits and the group size."""
        form = "".join(f"{name.removeprefix('auto_')}-" for name in self._format.values())
        return self.model_slug(f"autoround-{form}")

    @property
    def inputs(self) -> dict[str, object]:
        """The inputs of any calibrated stage, and the format."""
        return {**super().inputs, **self._format}

    @property
    def _format(self) -> dict[str, str]:
        """The format; empty for GPTQ's, so that older checkpoints keep their names."""
        return {} if self.quantize.format == GPTQ_FORMAT else {"format": self.quantize.format}

    @property
    def settings(self) -> AutoRoundSettings:
        """AutoRound's settings."""
        asked = {one.name: getattr(self.quantize, one.name) for one in fields(AutoRoundSettings)}
        return AutoRoundSettings(**asked)

    def job(self, **common: Any) -> QuantizeAutoRoundJob:
        """Return the job for AutoRound."""
        return QuantizeAutoRoundJob(settings=self.settings, format=self.quantize.format, **common)


def stage_of(weights: Weights, spec: VariantBase) -> Stage:
    """Return the stage that builds the checkpoint of `spec` from `weights`."""
    quantize = spec.calibration_table
    # A variant without this table loads a finished checkpoint, and needs no stage.
    assert isinstance(quantize, QuantizeAutoRound)  # noqa: S101
    return QuantizeWithAutoRound(weights, quantize)
