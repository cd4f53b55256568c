"""The stage from a model in full precision to a bitsandbytes checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from quantchat.checkpoints.full_precision import FromWeights, Weights
from quantchat.checkpoints.stages import MIB, BuildContext, Stage
from quantchat.common.versions import versions
from quantchat.engines.bitsandbytes import BitsAndBytes
from quantchat.wire.jobs import QuantizeBitsAndBytesJob

_MAKERS = ("bitsandbytes", "torch", "transformers")


@dataclass(frozen=True)
class QuantizeBitsAndBytes(FromWeights):
    """NF4, FP4 or int8, as bitsandbytes has it on loading, saved."""

    quant_type: str
    double_quant: bool
    compute_dtype: str
    title = "quantizing with bitsandbytes"

    @property
    def slug(self) -> str:
        """The model's name and what it becomes."""
        return f"{self.weights.source.slug}-{self.quant_type}"

    @property
    def settings(self) -> dict[str, str | bool]:
        """Options of the engine bitsandbytes."""
        return {
            "quant_type": self.quant_type,
            "double_quant": self.double_quant and self.quant_type != "int8",
            "compute_dtype": self.compute_dtype,
        }

    @property
    def inputs(self) -> dict[str, object]:
        """The settings, the weights, and the libraries that do it."""
        return {
            **self.weights.inputs,
            **self.weights.lent,
            **self.settings,
            "versions": versions(_MAKERS),
            "recipe": 1,
        }

    def room(self, needs: Sequence[Path]) -> int:
        """Less than the weights."""
        return self.weights.bytes(needs) + 64 * MIB

    async def build(self, work: BuildContext) -> dict[str, object]:
        """Load, which quantizes, and save, in a worker."""
        load = self.weights.load(work, "bitsandbytes", self.settings)
        result = await work.job(QuantizeBitsAndBytesJob(load, work.workspace))
        return {**asdict(result), **self.weights.remembered(work)}


def stage_of(weights: Weights, spec: BitsAndBytes) -> Stage:
    """Return the stage that makes the checkpoint of `spec` from `weights`."""
    return QuantizeBitsAndBytes(weights, spec.quant_type, spec.double_quant, spec.compute_dtype)
