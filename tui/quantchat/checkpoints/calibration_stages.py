"""The stages that build a calibration set: the model's own chats, or the user's text.

Each set has two parts. No checkpoint is calibrated on the second, held-out part. So the perplexity
of a checkpoint on that part shows how much quality quantization loses.
"""

from __future__ import annotations

import dataclasses
import importlib.resources
import random
from dataclasses import dataclass
from pathlib import Path

from quantchat.checkpoints.full_precision import FromWeights, Weights
from quantchat.checkpoints.stages import BuildContext, Stage
from quantchat.common.calibration_text import SHAPE, read
from quantchat.common.input_files import Unreadable
from quantchat.common.versions import versions
from quantchat.engines.quantize import Calibration, InGroups
from quantchat.errors import UserError
from quantchat.host.job_runner import JobFailed
from quantchat.text import one_line
from quantchat.wire.jobs import CalibrateJob, CalibrationPart, CollectSamplesJob

_SUFFIX: dict[CalibrationPart, str] = {"calibration": "", "held out": "-held-out"}

HELD_OUT = 16
"""Number of held-out samples. They are the model's answers to shipped prompts, chosen by the seed,
or the last pieces of the user's text; a short text gives fewer samples."""

_NO_MEMORY_FOR_CHATS = (
    "the whole model must fit into memory to write chats: calibrate on your own text"
    " (--calibration FILE; in a profile, calibration), or quantize on the CPU (--device cpu)"
)
"""Hint if memory runs out while chats are written; GPTQ needs memory for a few layers only."""

_LIBRARIES = ("torch", "transformers")


def calibration_stage(
    weights: Weights, quantize: Calibration, part: CalibrationPart = "calibration"
) -> Stage:
    """Return the stage that builds `part` of the calibration set of `quantize`."""
    return (Collect if quantize.calibration else Calibrate)(weights, quantize, part)


@dataclass(frozen=True)
class Calibrate(FromWeights):
    """The stage that writes calibration chats: the model's own answers to varied prompts."""

    quantize: Calibration
    part: CalibrationPart = "calibration"

    @property
    def key(self) -> str:
        """Text that identifies this stage and part in the hash of the artifact's name."""
        return f"writing {self.part.replace(' ', '-')} chats"

    @property
    def title(self) -> str:
        """The progress title, which names the part."""
        return f"writing {self.part.replace(' ', '-')} chats"

    @property
    def slug(self) -> str:
        """The model's short name and the part."""
        return f"{self.weights.source.slug}-chats{_SUFFIX[self.part]}"

    @property
    def inputs(self) -> dict[str, object]:
        """The weights, the prompts, the answer settings and the library versions."""
        return {
            **self.weights.inputs,
            **self.weights.chat_settings,
            "prompts": self.prompts,
            "samples": self._samples,
            "sample_tokens": self.quantize.sample_tokens,
            **_device_input(self.weights, self.quantize),
            "seed": self.quantize.seed,
            "versions": versions(_LIBRARIES),
            "recipe": 2,
        }

    @property
    def _samples(self) -> int | None:
        return HELD_OUT if self.part == "held out" else self.quantize.samples

    @property
    def prompts(self) -> list[str]:
        """The shipped prompts for `part`, shuffled by the seed.

        The last `HELD_OUT` prompts for short answers are the held-out part. The calibration part is
        the remaining prompts for short answers, then the prompts for long answers, at most
        `samples` in all.
        """
        order = random.Random(self.quantize.seed)  # noqa: S311
        short, long = (
            order.sample(prompts, len(prompts))
            for prompts in map(_shipped, ("prompts.txt", "long_prompts.txt"))
        )
        if self.part == "held out":
            return short[-HELD_OUT:]
        return [*short[:-HELD_OUT], *long][: self.quantize.samples]

    @property
    def _group_size(self) -> int:
        """The group size that must divide the widths of the model's layers; -1 for no condition.

        The job checks this before it writes chats, so that a model which cannot be quantized is
        refused early.
        """
        if isinstance(self.quantize, InGroups) and self.part == "calibration":
            return self.quantize.group_size
        return -1

    async def build(self, work: BuildContext) -> dict[str, object]:
        """Let the model answer the prompts, in a worker."""
        job = CalibrateJob(
            load=self.weights.load(work),
            prompts=self.prompts,
            samples=self._samples,
            sample_tokens=self.quantize.sample_tokens,
            seed=self.quantize.seed,
            workspace=work.workspace,
            # The group size is not among the inputs, because the chats do not depend on it.
            group_size=self._group_size,
        )
        try:
            result = await work.job(job)
        except JobFailed as error:
            if error.failure.kind != "out_of_memory":
                raise
            raise JobFailed(
                dataclasses.replace(error.failure, hint=_NO_MEMORY_FOR_CHATS)
            ) from error
        return dataclasses.asdict(result)


@dataclass(frozen=True)
class Collect(FromWeights):
    """The stage that takes calibration samples from the user's file or a data set on the hub."""

    quantize: Calibration
    part: CalibrationPart = "calibration"

    @property
    def key(self) -> str:
        """Text that identifies this stage and part in the hash of the artifact's name."""
        return (
            "reading the calibration" if self.part == "calibration" else "reading what is held out"
        )

    @property
    def title(self) -> str:
        """The progress title, which names the part."""
        return f"reading {self.part.replace(' ', '-')} text"

    @property
    def slug(self) -> str:
        """The short name of the model, whose tokenizer cuts the samples, and the part."""
        return f"{self.weights.source.slug}-calibration{_SUFFIX[self.part]}"

    @property
    def inputs(self) -> dict[str, object]:
        """The weights, the file's hash or the data set's name, and the settings of the samples.

        Raises UserError.
        """
        file, named = self.quantize.calibration_file, self.quantize.calibration
        return {
            **self.weights.inputs,
            **self.weights.chat_settings,
            **({"sha256": _sha256(Path(file))} if file else {"dataset": named}),
            "part": self.part,
            "samples": self.quantize.samples,
            "held_out": HELD_OUT,
            "sample_tokens": self.quantize.sample_tokens,
            **_device_input(self.weights, self.quantize),
            "seed": self.quantize.seed,
            "recipe": 1,
        }

    async def build(self, work: BuildContext) -> dict[str, object]:
        """Read the text and cut it into samples, in a worker that has the tokenizer."""
        quantize, file = self.quantize, self.quantize.calibration_file
        job = CollectSamplesJob(
            load=self.weights.load(work),
            part=self.part,
            samples=quantize.samples,
            held_out=HELD_OUT,
            sample_tokens=quantize.sample_tokens,
            seed=quantize.seed,
            workspace=work.workspace,
            file=file or "",
            sha256=_sha256(Path(file)) if file else "",
            dataset="" if file else quantize.calibration or "",
        )
        result = await work.job(job)
        return dataclasses.asdict(result)


def _shipped(name: str) -> list[str]:
    prompts = importlib.resources.files("quantchat.checkpoints") / name
    return prompts.read_text(encoding="utf-8").splitlines()


def _device_input(weights: Weights, quantize: Calibration) -> dict[str, str]:
    """Return the device as an input of the stage if the samples depend on it, else nothing.

    If `samples` or `sample_tokens` is not set, its default on a CPU differs from that on a GPU.
    """
    chosen = None in (quantize.samples, quantize.sample_tokens)
    return {"device": "cpu"} if chosen and weights.device == "cpu" else {}


def _sha256(file: Path) -> str:
    """Return the SHA-256 of a calibration file. Raises UserError if it is unreadable or invalid."""
    try:
        return read(file.expanduser())[1]
    except OSError as error:
        raise UserError(
            f"cannot read the calibration: {error.strerror or error}", where=one_line(str(file))
        ) from error
    except Unreadable as error:
        line = f":{error.line}" if error.line else ""
        raise UserError(str(error), where=one_line(f"{file}{line}"), hint=SHAPE) from error
