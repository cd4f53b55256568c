"""The stages that gather calibration: the model's own chats, or what the user names.

Each has two parts, of which the second is held out: nothing is calibrated on it, so that
perplexity over it says what was lost.
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
from quantchat.engines.quantize import Quantize
from quantchat.errors import UserError
from quantchat.host.job_runner import JobFailed
from quantchat.text import one_line
from quantchat.wire.jobs import CalibrateJob, CalibrationPart, CollectJob

_SUFFIX: dict[CalibrationPart, str] = {"calibration": "", "held out": "-held-out"}

HELD_OUT = 16
"""Samples held out, of the shipped prompts always the same ones for a seed."""

_NOT_WHOLE = (
    "to write chats the model must be held whole: calibrate on a text of yours"
    " (--calibration FILE; in a profile, calibration), or quantize on the CPU (--device cpu)"
)
"""What to do where memory is short; GPTQ itself takes a few layers' worth."""

_AUTHORS = ("torch", "transformers")


def gather(weights: Weights, quantize: Quantize, part: CalibrationPart = "calibration") -> Stage:
    """The stage that gathers `part` of the calibration that `quantize` asks for.

    Raises UserError where it names a file that cannot be read.
    """
    return (Collect if quantize.calibration else Calibrate)(weights, quantize, part)


@dataclass(frozen=True)
class Calibrate(FromWeights):
    """Calibration chats: the model's own answers to varied prompts."""

    quantize: Quantize
    part: CalibrationPart = "calibration"

    @property
    def title(self) -> str:
        """Which of the two parts is written."""
        return f"writing {self.part.replace(' ', '-')} chats"

    @property
    def slug(self) -> str:
        """The model's name."""
        return f"{self.weights.source.slug}-chats{_SUFFIX[self.part]}"

    @property
    def inputs(self) -> dict[str, object]:
        """The weights, the prompts, how they are answered, and by which libraries."""
        return {
            **self.weights.inputs,
            **self.weights.asked,
            "prompts": self.prompts,
            "samples": self._samples,
            "sample_tokens": self.quantize.sample_tokens,
            **_on_cpu(self.weights, self.quantize),
            "seed": self.quantize.seed,
            "versions": versions(_AUTHORS),
            "recipe": 2,
        }

    @property
    def _samples(self) -> int | None:
        return HELD_OUT if self.part == "held out" else self.quantize.samples

    @property
    def prompts(self) -> list[str]:
        """As many of the shipped prompts as there are to be samples, chosen by the seed.

        Those that ask for little come first, and of them the last ones in the seed's order are for
        the part that is held out.
        """
        order = random.Random(self.quantize.seed)  # noqa: S311
        short, long = (
            order.sample(prompts, len(prompts))
            for prompts in map(_shipped, ("prompts.txt", "long_prompts.txt"))
        )
        if self.part == "held out":
            return short[-HELD_OUT:]
        return [*short[:-HELD_OUT], *long][: self.quantize.samples]

    async def build(self, work: BuildContext) -> dict[str, object]:
        """Let the model answer the prompts, in a worker."""
        job = CalibrateJob(
            load=self.weights.load(work),
            prompts=self.prompts,
            samples=self._samples,
            sample_tokens=self.quantize.sample_tokens,
            seed=self.quantize.seed,
            workspace=work.workspace,
            # Not among the inputs: the chats are the same whatever is quantized on them.
            group_size=self.quantize.group_size if self.part == "calibration" else -1,
        )
        try:
            result = await work.job(job)
        except JobFailed as error:
            if error.failure.kind != "out_of_memory":
                raise
            raise JobFailed(dataclasses.replace(error.failure, hint=_NOT_WHOLE)) from error
        return dataclasses.asdict(result)


@dataclass(frozen=True)
class Collect(FromWeights):
    """Samples out of a file of the user's, or of a data set on the hub."""

    quantize: Quantize
    part: CalibrationPart = "calibration"

    @property
    def title(self) -> str:
        """Which of the two parts is read."""
        return (
            "reading the calibration" if self.part == "calibration" else "reading what is held out"
        )

    @property
    def slug(self) -> str:
        """The model's name, whose tokens are counted."""
        return f"{self.weights.source.slug}-calibration{_SUFFIX[self.part]}"

    @property
    def inputs(self) -> dict[str, object]:
        """What is read, by what it holds, and how it is cut. Raises UserError."""
        file, named = self.quantize.calibration_file, self.quantize.calibration
        return {
            **self.weights.inputs,
            **self.weights.asked,
            **({"sha256": _sha256(Path(file))} if file else {"dataset": named}),
            "part": self.part,
            "samples": self.quantize.samples,
            "held_out": HELD_OUT,
            "sample_tokens": self.quantize.sample_tokens,
            **_on_cpu(self.weights, self.quantize),
            "seed": self.quantize.seed,
            "recipe": 1,
        }

    async def build(self, work: BuildContext) -> dict[str, object]:
        """Read and cut it, in a worker that has the tokenizer."""
        quantize, file = self.quantize, self.quantize.calibration_file
        job = CollectJob(
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


def _on_cpu(weights: Weights, quantize: Quantize) -> dict[str, str]:
    """That it is gathered on the CPU, where that decides how much: a GPU's is another."""
    chosen = None in (quantize.samples, quantize.sample_tokens)
    return {"device": "cpu"} if chosen and weights.device == "cpu" else {}


def _sha256(file: Path) -> str:
    """The hash of a calibration file. Raises UserError where it cannot be read, or holds none."""
    try:
        return read(file.expanduser())[1]
    except OSError as error:
        raise UserError(
            f"cannot read the calibration: {error.strerror or error}", where=one_line(str(file))
        ) from error
    except Unreadable as error:
        line = f":{error.line}" if error.line else ""
        raise UserError(str(error), where=one_line(f"{file}{line}"), hint=SHAPE) from error
