"""From a GGUF file to a dense bf16 checkpoint that each engine can load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quantchat.worker.jobs import Report
from quantchat.worker.jobs.config_compat import write_both
from quantchat.worker.jobs.job_env import settle


def run(options: dict[str, Any], report: Report) -> dict[str, Any]:
    """Unpack `gguf_file` in the folder `source` into `output`, with its tokenizer.

    The weights are what the file holds, rounded to bfloat16; what its quantization lost stays
    lost. Result: `parameters`, their count.
    """
    report(0, 3, "importing libraries")
    settle(options)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source, name, output = options["source"], options["gguf_file"], Path(options["output"])
    report(1, 3, "unpacking the weights")
    model = AutoModelForCausalLM.from_pretrained(
        source,
        gguf_file=name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
    )
    model.save_pretrained(output)
    report(2, 3, "reading the tokenizer")
    AutoTokenizer.from_pretrained(source, gguf_file=name).save_pretrained(output)
    write_both(output)
    return {"parameters": model.num_parameters()}
