"""The stage from a model in full precision to a GPTQ checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from quantchat.checkpoints.built_results import as_recorded, cut_length
from quantchat.checkpoints.cache import read_built
from quantchat.checkpoints.calibration_stages import gather
from quantchat.checkpoints.full_precision import FromWeights, Weights
from quantchat.checkpoints.stages import MIB, BuildContext, Stage
from quantchat.common.versions import versions
from quantchat.engines.quantize import Quantize
from quantchat.engines.variant import VariantBase
from quantchat.wire.jobs import CHATS, GptqSettings, QuantizeGptqJob

_MAKERS = ("gptqmodel", "torch", "transformers")


@dataclass(frozen=True)
class QuantizeGptq(FromWeights):
    """A GPTQ checkpoint, quantized on the model's own chats or on what the user names."""

    quantize: Quantize
    title = "quantizing layer"

    @property
    def slug(self) -> str:
        """The model's name and what it becomes."""
        group = f"g{self.quantize.group_size}" if self.quantize.group_size > 0 else "rows"
        return f"{self.weights.source.slug}-gptq-{self.quantize.bits}bit-{group}"

    @property
    def settings(self) -> GptqSettings:
        """GPTQ's settings, as the job is given them."""
        asked = {one.name: getattr(self.quantize, one.name) for one in fields(GptqSettings)}
        # One order or the other: GPTQModel refuses both.
        asked["act_group_aware"] = asked["act_group_aware"] and not asked["desc_act"]
        return GptqSettings(**asked)

    @property
    def inputs(self) -> dict[str, object]:
        """GPTQ's settings, the weights, and the libraries that do it."""
        return {
            **self.weights.inputs,
            **self.weights.asked,
            **asdict(self.settings),
            "versions": versions(_MAKERS),
            "recipe": 2,
        }

    @property
    def needs(self) -> Sequence[Stage]:
        """The weights, if they are made here, and the calibration."""
        return (*self.weights.needs, gather(self.weights, self.quantize))

    def room(self, needs: Sequence[Path]) -> int:
        """The quantized layers thrice (kept to go on from, aside, and in the checkpoint).

        Of 8 bits that is one and a half of the weights; the rest stays as it is.
        """
        return 2 * self.weights.bytes(needs) + 64 * MIB

    async def build(self, work: BuildContext) -> dict[str, object]:
        """Quantize in a worker."""
        job = QuantizeGptqJob(
            load=self.weights.load(work),
            settings=self.settings,
            calibration=str(work.needs[-1] / CHATS),
            workspace=work.workspace,
            # The model's own answers have their length already, and their prompts besides.
            most_tokens=self._most_tokens(work) if self.quantize.calibration else None,
        )
        result = await work.job(job)
        body = {**asdict(result), "calibration": as_recorded(result.calibration)}
        return {**body, **self.weights.remembered(work)}

    def _most_tokens(self, work: BuildContext) -> int | None:
        """What the calibration is cut after; where that was chosen for it, as it remembers."""
        if self.quantize.sample_tokens is not None:
            return self.quantize.sample_tokens
        return cut_length(read_built(work.needs[-1]))


def stage_of(weights: Weights, spec: VariantBase) -> Stage:
    """The stage that makes the checkpoint of `spec` from `weights`."""
    assert spec.calibrated is not None  # noqa: S101 - else it loads a finished checkpoint
    return QuantizeGptq(weights, spec.calibrated)
