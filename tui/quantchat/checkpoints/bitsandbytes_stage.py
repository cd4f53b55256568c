"""The build stage that quantizes a model in full precision with bitsandbytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from quantchat.checkpoints.full_precision import FromWeights, Weights
from quantchat.checkpoints.stages import MIB, BuildContext, Stage
from quantchat.common.versions import versions
from quantchat.engines.bitsandbytes import ENGINE, BitsAndBytes
from quantchat.wire.jobs import QuantizeBitsAndBytesJob

_LIBRARIES = (*(library.package for library in ENGINE.libraries), "torch", "transformers")


@dataclass(frozen=True)
class QuantizeBitsAndBytes(FromWeights):
    """The stage that quantizes with bitsandbytes (NF4, FP4 or int8) and saves the checkpoint."""

    quant_type: str
    double_quant: bool
    compute_dtype: str
    key = "quantizing with bitsandbytes"
    title = "quantizing with bitsandbytes"

    @property
    def slug(self) -> str:
        """The model's short name and the quantization type."""
        return f"{self.weights.source.slug}-{self.quant_type}"

    @property
    def settings(self) -> dict[str, str | bool]:
        """Load options for the engine `bitsandbytes`; int8 has no double quantization."""
        return {
            "quant_type": self.quant_type,
            "double_quant": self.double_quant and self.quant_type != "int8",
            "compute_dtype": self.compute_dtype,
        }

    @property
    def inputs(self) -> dict[str, object]:
        """The weights, a tokenizer taken from another model, the settings, the library versions."""
        return {
            **self.weights.inputs,
            **self.weights.borrowed_tokenizer,
            **self.settings,
            "versions": versions(_LIBRARIES),
            "recipe": 1,
        }

    def disk_bytes(self, needs: Sequence[Path]) -> int:
        """Upper bound in bytes: a quantized checkpoint is smaller than the full weights."""
        return self.weights.bytes(needs) + 64 * MIB

    async def build(self, work: BuildContext) -> dict[str, object]:
        """Load the model in a worker, which quantizes it, and save the checkpoint."""
        load = self.weights.load(work, ENGINE, self.settings)
        result = await work.job(QuantizeBitsAndBytesJob(load, work.workspace))
        return {**asdict(result), **self.weights.inherited(work)}


def stage_of(weights: Weights, spec: BitsAndBytes) -> Stage:
    """Return the stage that builds the checkpoint of `spec` from `weights`."""
    return QuantizeBitsAndBytes(weights, spec.quant_type, spec.double_quant, spec.compute_dtype)
