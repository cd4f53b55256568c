"""Prints checkpoints' logits as JSON: `python logits_of.py IDS LIBRARY FOLDER [LIBRARY FOLDER …]`.

It does not import quantchat, because it represents users who load the checkpoint without quantchat.
GPTQModel and transformers 4 print while they are imported, so the logits go to descriptor 3.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def load(library: str, folder: str) -> Any:
    """The model, on the CPU, and in float32 where its kernels have that."""
    import torch

    torch.set_num_threads(1)
    if library == "gptqmodel":
        from gptqmodel import GPTQModel

        return GPTQModel.load(folder, device="cpu", dtype=torch.float32).model
    if library == "auto-gptq":
        from auto_gptq import AutoGPTQForCausalLM

        return AutoGPTQForCausalLM.from_quantized(
            folder, device="cpu", torch_dtype=torch.float32, use_safetensors=True
        ).model
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    more: dict[str, Any] = {"dtype": torch.float32}
    if library.startswith("bitsandbytes"):  # its 4-bit kernels have no float32
        more["dtype"] = torch.bfloat16
    if library == "bitsandbytes, on loading":
        more["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    return AutoModelForCausalLM.from_pretrained(folder, device_map="cpu", **more)


def main() -> None:
    ids, *named = sys.argv[1:]
    import torch

    found = []
    for library, folder in zip(named[::2], named[1::2], strict=True):
        model = load(library, folder)
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([json.loads(ids)])).logits
        found.append(logits[0].float().tolist())
    with os.fdopen(3, "w") as output:
        json.dump(found, output)


if __name__ == "__main__":
    main()
