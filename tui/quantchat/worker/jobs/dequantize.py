"""Unpacks a GGUF file into a dense bf16 checkpoint that every engine can load."""

from __future__ import annotations

from pathlib import Path

from quantchat.wire.jobs import DequantizeJob, DequantizeResult
from quantchat.worker.import_pruning import without_compiler
from quantchat.worker.jobs.config_compat import add_version_4_keys
from quantchat.worker.jobs.job_env import prepare_process
from quantchat.worker.report import Report


def run(job: DequantizeJob, report: Report) -> DequantizeResult:
    """Unpack the GGUF file into the output folder, with its tokenizer.

    The weights are those of the file, rounded to bfloat16; what its quantization lost stays lost.
    """
    report(0, 3, "importing libraries")
    prepare_process(job.workspace)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    output = Path(job.workspace.output)
    report(1, 3, "unpacking the weights")
    with without_compiler():
        model = AutoModelForCausalLM.from_pretrained(
            job.source,
            gguf_file=job.gguf_file,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.bfloat16,
        )
        model.save_pretrained(output)
    report(2, 3, "reading the tokenizer")
    AutoTokenizer.from_pretrained(job.source, gguf_file=job.gguf_file).save_pretrained(output)
    add_version_4_keys(output)
    return DequantizeResult(model.num_parameters())
