"""A LoRA adapter on a loaded model (Hu et al. 2021), through PEFT, by transformers' own loader.

The adapter stays beside the weights, as QLoRA has it, and is not merged into them: what is
quantized stays as it was.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from quantchat.worker.engines.files_check import json_object, tensor_names
from quantchat.worker.engines.pickles import pickled_file
from quantchat.worker.failures import Refused

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def attach(model: Any, adapter: str) -> tuple[str, str]:
    """Put `adapter` on `model`: an absolute folder, or `org/name` or `org/name@revision` of a hub.

    Returns what it is in words, and the SHA-256 over its two files. Raises Refused where it is
    damaged, pickled, of another kind, or does not fit the model to its last tensor.
    """
    folder = _folder(adapter)
    config = _config(folder, adapter)
    wanted = tensor_names(folder / WEIGHTS)
    try:
        import peft  # noqa: F401 - transformers asks for it by a sentence that names pip alone
    except ImportError as error:
        raise Refused(
            "missing_library",
            f"an adapter needs the library peft: {error}",
            "python -m pip install 'quantchat[adapters]'",
        ) from error
    try:
        model.load_adapter(str(folder))
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise _misfit(adapter, config, " ".join(str(error).split())[:300]) from error
    there = sum("lora_" in name for name, _ in model.named_parameters())
    if there != len(wanted):
        what = f"{len(wanted)} of its tensors, {there} have a place in the model"
        raise _misfit(adapter, config, what)
    targets = config.get("target_modules")  # names, or one pattern for them
    parts = ", ".join(sorted(map(str, targets))) if isinstance(targets, list) else targets
    return f"LoRA r{config.get('r')} on {parts}", _hash(folder)


def _folder(adapter: str) -> Path:
    if Path(adapter).is_absolute():
        return Path(adapter)
    from huggingface_hub import snapshot_download

    name, _, revision = adapter.partition("@")
    return Path(
        snapshot_download(name, revision=revision or None, allow_patterns=[CONFIG, WEIGHTS])
    )


def _config(folder: Path, adapter: str) -> dict[str, Any]:
    if not (folder / CONFIG).is_file():
        raise _unusable(adapter, f"there is no {CONFIG}", "name a folder that PEFT saved")
    if not (folder / WEIGHTS).is_file():
        if pickled_file(folder):
            what = "its weights are pickled: opening them could run any code"
            raise _unusable(adapter, what, "save it anew as safetensors: PeftModel.save_pretrained")
        raise _unusable(adapter, f"there is no {WEIGHTS}", "name a folder that PEFT saved")
    config = json_object(folder / CONFIG)
    if config.get("peft_type") != "LORA":
        kind = str(config.get("peft_type"))[:40]
        raise _unusable(adapter, f"it is of the kind {kind}", "a variant takes LoRA adapters")
    return config


def _misfit(adapter: str, config: dict[str, Any], why: str) -> Refused:
    base = str(config.get("base_model_name_or_path") or "a model that it does not name")
    return _unusable(adapter, f"it does not fit this model, it was made for {base}: {why}")


def _unusable(
    adapter: str,
    what: str,
    mend: str = "name the model that it was made for, or another adapter",
) -> Refused:
    return Refused("bad_checkpoint", f"cannot use the adapter {adapter}: {what}", mend)


def _hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in (CONFIG, WEIGHTS):
        digest.update(hashlib.sha256((folder / name).read_bytes()).digest())
    return digest.hexdigest()
