"""The build stages that quantize a model in full precision with GPTQ or AWQ.

Their base classes also serve AutoRound (`autoround_stage`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from quantchat.checkpoints.built_results import as_recorded, cut_length
from quantchat.checkpoints.cache import read_built
from quantchat.checkpoints.calibration_stages import calibration_stage
from quantchat.checkpoints.full_precision import FromWeights, Weights
from quantchat.checkpoints.stages import MIB, BuildContext, Stage
from quantchat.common.versions import versions
from quantchat.engines.gptq import ENGINE
from quantchat.engines.quantize import Calibration, InGroups, Quantize, QuantizeAwq
from quantchat.engines.variant import VariantBase
from quantchat.wire.jobs import (
    CHATS_FILE,
    AutoRoundSettings,
    AwqSettings,
    GgufSettings,
    GptqSettings,
    Job,
    QuantizeAwqJob,
    QuantizeGptqJob,
    QuantizeGptqResult,
)

_GPTQMODEL = tuple(library.package for library in ENGINE.libraries)


@dataclass(frozen=True)
class QuantizeCalibrated(FromWeights):
    """A stage that quantizes with a calibration set: the model's own chats or a user's text."""

    quantize: Calibration
    versioned: ClassVar[tuple[str, ...]] = (*_GPTQMODEL, "torch", "transformers")
    """Packages whose versions the checkpoint depends on."""
    key = "quantizing layer"
    title = "quantizing layer"

    @property
    @abstractmethod
    def settings(self) -> GptqSettings | AwqSettings | AutoRoundSettings | GgufSettings:
        """The settings of the method, for the job."""

    @abstractmethod
    def job(self, **common: Any) -> Job[QuantizeGptqResult]:
        """Return the job in which a worker quantizes; `common` are fields of all such jobs."""

    @property
    def inputs(self) -> dict[str, object]:
        """The weights, the chat settings, the method's settings and the library versions."""
        return {
            **self.weights.inputs,
            **self.weights.chat_settings,
            **asdict(self.settings),
            "versions": versions(self.versioned),
            "recipe": 2,
        }

    @property
    def needs(self) -> Sequence[Stage]:
        """The stage of the weights, if they are built here, and that of the calibration set."""
        return (*self.weights.needs, calibration_stage(self.weights, self.quantize))

    def disk_bytes(self, needs: Sequence[Path]) -> int:
        """Upper bound in bytes: three copies of the quantized layers, and the unquantized rest.

        The copies are the files to resume from, the temporary files and the checkpoint. At 8 bits
        the three take 1.5 times as much as the 16-bit weights.
        """
        return 2 * self.weights.bytes(needs) + 64 * MIB

    async def build(self, work: BuildContext) -> dict[str, object]:
        """Quantize the model in a worker; return the job's result for `made.json`."""
        job = self.job(
            load=self.weights.load(work),
            calibration=str(work.needs[-1] / CHATS_FILE),
            workspace=work.workspace,
            # The user's text is cut to `sample_tokens` here. The model's own chats are read whole:
            # their answers were limited to `sample_tokens` when they were written, and a limit on
            # the chat would also count the tokens of the prompt.
            most_tokens=self._most_tokens(work) if self.quantize.calibration else None,
        )
        result = await work.job(job)
        body = {**asdict(result), "calibration": as_recorded(result.calibration)}
        return {**body, **self.weights.inherited(work)}

    def _most_tokens(self, work: BuildContext) -> int | None:
        """Return the token limit of a calibration sample; None if not recorded.

        Without an explicit `sample_tokens`, the calibration stage recorded the limit it chose.
        """
        if self.quantize.sample_tokens is not None:
            return self.quantize.sample_tokens
        return cut_length(read_built(work.needs[-1]))


@dataclass(frozen=True)
class Grouped(QuantizeCalibrated):
    """A calibrated stage of a method in which the weights of a group share a scale."""

    quantize: InGroups

    def model_slug(self, method: str) -> str:
        """The model's short name, the method, the bits and the group size (`rows`: whole rows)."""
        group = f"g{self.quantize.group_size}" if self.quantize.group_size > 0 else "rows"
        return f"{self.weights.source.slug}-{method}{self.quantize.bits}bit-{group}"


@dataclass(frozen=True)
class QuantizeGptq(Grouped):
    """The stage that quantizes with GPTQ."""

    quantize: Quantize

    @property
    def slug(self) -> str:
        """The model's short name, the method, the bits and the group size."""
        return self.model_slug("gptq-")

    @property
    def settings(self) -> GptqSettings:
        """GPTQ's settings; `desc_act` switches `act_group_aware` off."""
        settings = {one.name: getattr(self.quantize, one.name) for one in fields(GptqSettings)}
        # Both keys set the order of the columns, so GPTQModel refuses them together.
        settings["act_group_aware"] = settings["act_group_aware"] and not settings["desc_act"]
        return GptqSettings(**settings)

    def job(self, **common: Any) -> QuantizeGptqJob:
        """Return the job in which a worker quantizes with GPTQ."""
        return QuantizeGptqJob(settings=self.settings, **common)


@dataclass(frozen=True)
class QuantizeWithAwq(Grouped):
    """The stage that quantizes with AWQ."""

    quantize: QuantizeAwq

    @property
    def slug(self) -> str:
        """The model's short name, the method, the bits and the group size."""
        return self.model_slug("awq-")

    @property
    def settings(self) -> AwqSettings:
        """AWQ's settings."""
        return AwqSettings(self.quantize.bits, self.quantize.group_size, self.quantize.sym)

    def job(self, **common: Any) -> QuantizeAwqJob:
        """Return the job in which a worker quantizes with AWQ."""
        return QuantizeAwqJob(settings=self.settings, **common)


def stage_of(weights: Weights, spec: VariantBase) -> Stage:
    """Return the stage that builds the checkpoint of `spec` from `weights`."""
    settings = spec.calibration_table
    if isinstance(settings, QuantizeAwq):
        return QuantizeWithAwq(weights, settings)
    # A variant without the table [variants.quantize] loads a finished checkpoint, without a stage.
    assert isinstance(settings, Quantize)  # noqa: S101
    return QuantizeGptq(weights, settings)
