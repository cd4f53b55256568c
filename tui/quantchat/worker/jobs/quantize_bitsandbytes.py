"""Builds a bitsandbytes checkpoint: NF4, FP4 (QLoRA, Dettmers et al. 2023) or LLM.int8()."""

from __future__ import annotations

from pathlib import Path

from quantchat.wire.jobs import QuantizeBitsAndBytesJob, QuantizeBitsAndBytesResult
from quantchat.worker.jobs.config_compat import add_version_4_keys
from quantchat.worker.jobs.job_env import prepare_process, with_local_files
from quantchat.worker.loaders import bitsandbytes, without_needless_compiler
from quantchat.worker.model.files_check import refuse_quantized
from quantchat.worker.model.tokenizer import fetch_named
from quantchat.worker.report import Report


def run(job: QuantizeBitsAndBytesJob, report: Report) -> QuantizeBitsAndBytesResult:
    """Quantize the model while loading it, and save it into the output folder.

    The checkpoint is saved before the first forward pass: on a CPU that pass repacks the weights in
    place, and a checkpoint saved afterwards loads as garbage (bitsandbytes 0.50). Raises Refused if
    the model is already quantized.
    """
    report(0, 0, "importing libraries")
    prepare_process(job.workspace)
    load, output = with_local_files(job.load, report), Path(job.workspace.output)
    refuse_quantized(load.model)
    with without_needless_compiler(load):
        loaded = bitsandbytes.load(fetch_named(load), lambda stage: report(0, 0, stage))
    report(0, 0, "writing the checkpoint")
    loaded.model.save_pretrained(output)
    loaded.tokenizer.save_pretrained(output)
    add_version_4_keys(output)
    return QuantizeBitsAndBytesResult(loaded.kernel)
