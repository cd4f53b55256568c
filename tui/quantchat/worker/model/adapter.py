"""A LoRA adapter (Hu et al. 2021) on a loaded model, through PEFT: beside its weights, or in them.

Beside them, as QLoRA has it, what is quantized stays as it was. Into them it is merged before they
are quantized: into weights that are quantized already it would be rounded anew.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantchat.common.adapter_folder import CONFIG, WEIGHTS
from quantchat.worker.failures import Refused
from quantchat.worker.model.files_check import json_object, pickled_file, tensor_names
from quantchat.worker.model.hub import fetched_named


@dataclass(frozen=True)
class Adapter:
    """An adapter that was looked over: it is whole, and of the kind that can be used."""

    name: str
    """As the user names it."""
    folder: Path
    config: dict[str, Any]
    tensors: int

    @property
    def kind(self) -> str:
        """`LoRA r8 on q_proj, v_proj`."""
        targets = self.config.get("target_modules")  # names, or one pattern for them
        parts = ", ".join(sorted(map(str, targets))) if isinstance(targets, list) else targets
        return f"LoRA r{self.config.get('r')} on {parts}"


def opened(name: str) -> Adapter:
    """Look over the adapter `name`: an absolute folder, or `org/name` or `org/name@revision`.

    Loads nothing. Raises Refused where it cannot be had, is damaged, pickled, or of another kind,
    and where PEFT is missing.
    """
    folder = Path(name)
    if not folder.is_absolute():
        folder = fetched_named(name, "the adapter", allow_patterns=[CONFIG, WEIGHTS])
    config = _config(folder, name)
    tensors = len(tensor_names(folder / WEIGHTS))
    try:
        import peft  # noqa: F401 - transformers asks for it by a sentence that names pip alone
    except ImportError as error:
        raise Refused(
            "missing_library",
            f"an adapter needs the library peft: {error}",
            "python -m pip install 'quantchat[adapters]'",
        ) from error
    return Adapter(name, folder, config, tensors)


def attach(model: Any, adapter: Adapter) -> None:
    """Put `adapter` beside the weights of `model`. Raises Refused where it does not fit whole."""
    with _fitting(adapter):
        model.load_adapter(str(adapter.folder))
    _look_for_all(model, adapter)


def merge(model: Any, adapter: Adapter) -> Any:
    """Merge `adapter` into the weights of `model`, which is used up; return the model it gives.

    In full precision only: the weights keep their dtype. Raises Refused as `attach` does.
    """
    from peft import PeftModel

    with _fitting(adapter):
        adapted = PeftModel.from_pretrained(model, str(adapter.folder))
    _look_for_all(adapted, adapter)
    return adapted.merge_and_unload()


@contextlib.contextmanager
def _fitting(adapter: Adapter) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        why = " ".join(str(error).split())[:300]
        if "ignore_mismatched_sizes" in why:  # transformers names its option, and nothing else
            why = "its tensors have other shapes than its config says, or than the model's"
        raise _misfit(adapter, why) from error


def _look_for_all(model: Any, adapter: Adapter) -> None:
    """What finds no place is left out by PEFT, with a warning at most."""
    there = sum("lora_" in name for name, _ in model.named_parameters())
    if there != adapter.tensors:
        what = f"{adapter.tensors} of its tensors, {there} have a place in the model"
        raise _misfit(adapter, what)


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


def _misfit(adapter: Adapter, why: str) -> Refused:
    base = adapter.config.get("base_model_name_or_path") or "a model that it does not name"
    what = f"it does not fit this model, it was made for {base}: {why}"
    return _unusable(adapter.name, what)


def _unusable(
    adapter: str,
    what: str,
    hint: str = "name the model that it was made for, or another adapter",
) -> Refused:
    return Refused("bad_checkpoint", f"cannot use the adapter {adapter}: {what}", hint)
