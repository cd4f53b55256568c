"""The first and the last steps of all jobs that quantize with a calibration set."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantchat.wire.jobs import (
    CalibrationUsed,
    ModuleLoss,
    QuantizeAutoRoundJob,
    QuantizeAwqJob,
    QuantizeGgufJob,
    QuantizeGptqJob,
    QuantizeGptqResult,
)
from quantchat.wire.messages import LoadModel
from quantchat.worker.jobs.calibration_io import keep, read
from quantchat.worker.jobs.config_compat import add_version_4_keys
from quantchat.worker.jobs.job_env import (
    prepare_process,
    return_freed_memory,
    tokenizer_for,
    with_local_files,
)
from quantchat.worker.model.files_check import refuse_quantized
from quantchat.worker.report import Report

CalibratedJob = QuantizeGptqJob | QuantizeAwqJob | QuantizeAutoRoundJob | QuantizeGgufJob


@dataclass(frozen=True)
class CalibrationSamples:
    """The calibration samples as the model reads them."""

    tokenizer: Any
    chats: list[list[int]]
    """The token ids of each sample."""
    template: dict[str, object]
    """Variables of the chat template."""

    @property
    def tokens(self) -> int:
        """Number of tokens of all samples."""
        return sum(map(len, self.chats))


def begin(job: CalibratedJob, report: Report, library: str) -> LoadModel:
    """Prepare the process, import the module `library`, and find or fetch the model's files.

    Return `job.load` with a local folder as its model. Raises Refused if the model is already
    quantized.
    """
    report(0, 0, "importing libraries")
    prepare_process(job.workspace)
    return_freed_memory()  # else glibc would keep the memory of each finished layer
    # Imported here, so that the import belongs to this stage and not to "loading the model".
    importlib.import_module(library)
    report(0, 0, "loading the model")
    load = with_local_files(job.load, report)
    refuse_quantized(load.model)
    return load


def samples(job: CalibratedJob, load: LoadModel) -> CalibrationSamples:
    """Return the calibration samples of `job`. Raises Refused if the tokenizer cannot be loaded."""
    tokenizer, template = tokenizer_for(load), load.template_variables
    chats = read(Path(job.calibration), tokenizer, job.most_tokens, template)
    return CalibrationSamples(tokenizer, chats, template)


def end(
    job: CalibratedJob, samples: CalibrationSamples, *, layers: int, tokens: int, **more: Any
) -> QuantizeGptqResult:
    """Complete the checkpoint with the tokenizer and the calibration samples; return the result.

    See `result` for `layers`, `tokens` and `more`.
    """
    output = Path(job.workspace.output)
    samples.tokenizer.save_pretrained(output)
    add_version_4_keys(output)
    return result(job, samples, layers=layers, tokens=tokens, **more)


def result(
    job: CalibratedJob,
    samples: CalibrationSamples,
    *,
    layers: int,
    tokens: int,
    widest: int = 0,
    losses: Sequence[ModuleLoss] = (),
    resumed: int = 0,
) -> QuantizeGptqResult:
    """Store the calibration samples in the checkpoint's folder, and return the result.

    `layers` is the number of layers of the model, `tokens` the number of tokens that the method
    really used, and `widest` the number of inputs of the widest layer (0: not relevant for the
    method). See `QuantizeGptqResult` for `losses` and `resumed`.
    """
    digest = keep(Path(job.calibration), Path(job.workspace.output))
    return QuantizeGptqResult(
        layers=layers,
        losses=list(losses),
        calibration=CalibrationUsed(len(samples.chats), tokens, digest, widest, samples.template),
        resumed=resumed,
    )
