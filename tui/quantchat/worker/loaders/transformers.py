"""Load models with transformers alone: bf16 and fp16 baselines, and many quantized checkpoints.

Quantized checkpoints are AWQ, HQQ, compressed-tensors, torchao and fp8 checkpoints, in which
config.json names the quantization. GGUF files are loaded too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from quantchat.wire.messages import WEIGHTS, LoadModel
from quantchat.worker.import_pruning import OPTIONAL
from quantchat.worker.model.contents import Contents, unpacked
from quantchat.worker.model.devices import device_for, fast_dtype
from quantchat.worker.model.files_check import quantization_method
from quantchat.worker.model.loaded import Loaded, choose_dtype, load_model
from quantchat.worker.model.tokenizer import fast_tokenizer, other_split

UNUSED = OPTIONAL


def load(command: LoadModel, stage: Callable[[str], None]) -> Loaded:
    """Load a transformers checkpoint. `options`: `gguf_file`, a file name in the model's folder."""
    # Imported before the stage WEIGHTS, so that the time counts as import.
    from transformers import AutoConfig

    device = device_for(command)
    more: dict[str, Any] = {}
    if gguf := command.option("gguf_file", ""):
        more["gguf_file"] = gguf
    tokenizer = fast_tokenizer(command, **more)
    stage(WEIGHTS)
    dtype = choose_dtype(command.dtype)
    if dtype == "auto" and device.startswith("cuda") and not gguf:
        config = AutoConfig.from_pretrained(
            command.model, trust_remote_code=command.trust_remote_code
        )
        own = getattr(config, "dtype", None)
        if (fast := fast_dtype(own, device)) != own:
            dtype = fast
    model = load_model(command, device, dtype=dtype, **more)
    method = "gguf" if gguf else quantization_method(command.model)
    if not method:
        return Loaded(command, model, tokenizer, kernel="not quantized")
    contents = Contents.of(model)
    note = ""
    if gguf and "tokenizer" not in command.options:
        note = other_split(Path(command.model) / gguf)
    kernel = f"{method} {contents.kernel}"
    if not contents.quantized:
        kernel, unpacking = unpacked(model, method, command.model, gguf or "")
        note = "; ".join(filter(None, (unpacking, note)))
    return Loaded(command, model, tokenizer, kernel=kernel, note=note)
