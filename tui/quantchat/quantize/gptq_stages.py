"""The stages from a model in full precision to a GPTQ checkpoint."""

from __future__ import annotations

import importlib.resources
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantchat.profile.model import AutoGptq, Gptq, Quantize
from quantchat.quantize.cache import read_made
from quantchat.quantize.sources import Named
from quantchat.quantize.stages import MIB, Dequantize, Stage, Work
from quantchat.worker.jobs import CHATS
from quantchat.worker.versions import versions


@dataclass(frozen=True)
class Weights:
    """A model in full precision, made here or named by the user, and how it is loaded."""

    source: Named | Dequantize
    dtype: str
    device: str
    trusted: bool

    @classmethod
    def of(cls, spec: Gptq | AutoGptq, source: Named | Dequantize) -> Weights:
        """The weights of `source`, loaded as `spec` has it."""
        return cls(source, spec.dtype, spec.device, spec.trust_remote_code)

    @property
    def needs(self) -> Sequence[Stage]:
        """The stage that makes it, if one does."""
        return (self.source,) if isinstance(self.source, Dequantize) else ()

    @property
    def inputs(self) -> dict[str, Any]:
        """What tells it from other weights, beyond the stage that makes it."""
        named = {"model": self.source.identity()} if isinstance(self.source, Named) else {}
        return {**named, "dtype": self.dtype}

    def options(self, work: Work) -> dict[str, Any]:
        """How a job loads it."""
        if isinstance(self.source, Named):
            model, revision = self.source.model, self.source.revision
        else:
            model, revision = str(work.needs[0]), None
        return {
            "model": model,
            "revision": revision,
            "dtype": self.dtype,
            "device": self.device,
            "trusted": self.trusted,
        }


@dataclass(frozen=True)
class Calibrate(Stage):
    """Calibration chats: the model's own answers to varied prompts."""

    weights: Weights
    quantize: Quantize
    title = "writing calibration chats"

    @property
    def slug(self) -> str:
        """The model's name."""
        return f"{self.weights.source.slug}-chats"

    @property
    def inputs(self) -> dict[str, Any]:
        """The weights, the prompts, and how they are answered."""
        return {
            **self.weights.inputs,
            "prompts": self.prompts,
            "samples": self.quantize.samples,
            "sample_tokens": self.quantize.sample_tokens,
            "seed": self.quantize.seed,
            "recipe": 1,
        }

    @property
    def needs(self) -> Sequence[Stage]:
        """The weights, if they are made here."""
        return self.weights.needs

    @property
    def prompts(self) -> list[str]:
        """As many of the shipped prompts as there are to be samples, chosen by the seed."""
        shipped = importlib.resources.files("quantchat.quantize") / "prompts.txt"
        prompts = shipped.read_text(encoding="utf-8").splitlines()
        most = min(self.quantize.samples, len(prompts))
        return random.Random(self.quantize.seed).sample(prompts, most)  # noqa: S311

    async def build(self, work: Work) -> dict[str, Any]:
        """Let the model answer the prompts, in a worker."""
        return await work.job("calibrate", {**self.inputs, **self.weights.options(work)})


@dataclass(frozen=True)
class QuantizeGptq(Stage):
    """A GPTQ checkpoint, quantized on the model's own chats."""

    weights: Weights
    quantize: Quantize
    title = "quantizing layer"

    @property
    def slug(self) -> str:
        """The model's name and what it becomes."""
        group = f"g{self.quantize.group_size}" if self.quantize.group_size > 0 else "rows"
        return f"{self.weights.source.slug}-gptq-{self.quantize.bits}bit-{group}"

    @property
    def inputs(self) -> dict[str, Any]:
        """GPTQ's settings, the weights, and the library that does it."""
        names = ("bits", "group_size", "desc_act", "sym", "damp_percent")
        return {
            **self.weights.inputs,
            **{name: getattr(self.quantize, name) for name in names},
            "gptqmodel": versions(["gptqmodel"]).get("gptqmodel", "none"),
            "recipe": 1,
        }

    @property
    def needs(self) -> Sequence[Stage]:
        """The weights, if they are made here, and the chats."""
        return (*self.weights.needs, Calibrate(self.weights, self.quantize))

    def room(self, needs: Sequence[Path]) -> int:
        """The quantized layers twice, aside and in the checkpoint, and what stays as it is."""
        chats = read_made(needs[-1])
        return 2 * int(chats.result.get("weight_bytes", 0)) + 64 * MIB if chats else 0

    async def build(self, work: Work) -> dict[str, Any]:
        """Quantize in a worker."""
        options = {"calibration": str(work.needs[-1] / CHATS)}
        return await work.job(
            "quantize_gptq", {**self.inputs, **self.weights.options(work), **options}
        )
