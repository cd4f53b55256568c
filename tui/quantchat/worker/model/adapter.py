"""Use a LoRA adapter (Hu et al. 2021) through PEFT: beside a model's weights, or merged into them.

Beside quantized weights the adapter stays separate, as in QLoRA: merging it would round the weights
again. An adapter is merged only into a full-precision model, before that model is quantized.
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
from quantchat.worker.model.hub import fetch_named_model


@dataclass(frozen=True)
class Adapter:
    """An adapter that is complete and of a supported kind."""

    name: str
    """The name in the profile."""
    folder: Path
    config: dict[str, object]
    tensors: int
    """Number of tensors in the adapter's file."""

    @property
    def kind(self) -> str:
        """The adapter's kind, rank and layers, e.g. `LoRA r8 on q_proj, v_proj`."""
        targets = self.config.get("target_modules")  # a list of names, or one pattern
        parts = ", ".join(sorted(map(str, targets))) if isinstance(targets, list) else targets
        return f"LoRA r{self.config.get('r')} on {parts}"


def check_adapter(name: str) -> Adapter:
    """Check the adapter `name`: an absolute folder, `org/name` or `org/name@revision`.

    Loads no weights. Raises Refused if the adapter cannot be downloaded, is damaged, pickled or not
    LoRA, or if PEFT is missing.
    """
    folder = Path(name)
    if not folder.is_absolute():
        folder = fetch_named_model(name, "the adapter", allow_patterns=[CONFIG, WEIGHTS])
    config = _config(folder, name)
    tensors = len(tensor_names(folder / WEIGHTS))
    try:
        import peft  # noqa: F401 - only checks: transformers' own error names no extra of quantchat
    except ImportError as error:
        raise Refused(
            "missing_library",
            f"an adapter needs the library peft: {error}",
            "python -m pip install 'quantchat[adapters]'",
        ) from error
    return Adapter(name, folder, config, tensors)


def attach(model: Any, adapter: Adapter) -> None:
    """Add `adapter` to `model`, whose weights stay unchanged.

    Raises Refused if the adapter does not fit the model.
    """
    with _misfit_refused(adapter):
        model.load_adapter(str(adapter.folder))
    _check_complete(model, adapter)


def merge(model: Any, adapter: Adapter) -> Any:
    """Merge `adapter` into the weights of `model`, in place; return the merged model.

    The model must be in full precision; its weights keep their dtype. Raises Refused as `attach`
    does.
    """
    from peft import PeftModel

    with _misfit_refused(adapter):
        adapted = PeftModel.from_pretrained(model, str(adapter.folder))
    _check_complete(adapted, adapter)
    return adapted.merge_and_unload()


@contextlib.contextmanager
def _misfit_refused(adapter: Adapter) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        why = " ".join(str(error).split())[:300]
        if "ignore_mismatched_sizes" in why:  # transformers' message only names this option
            why = "its tensors have other shapes than its config or the model requires"
        raise _misfit(adapter, why) from error


def _check_complete(model: Any, adapter: Adapter) -> None:
    """Raise Refused if PEFT has skipped some tensors of the adapter: PEFT itself only warns."""
    there = sum("lora_" in name for name, _ in model.named_parameters())
    if there != adapter.tensors:
        what = f"only {there} of its {adapter.tensors} tensors have a place in the model"
        raise _misfit(adapter, what)


def _config(folder: Path, adapter: str) -> dict[str, object]:
    if not (folder / CONFIG).is_file():
        raise _unusable(adapter, f"there is no {CONFIG}", "name a folder that PEFT has saved")
    if not (folder / WEIGHTS).is_file():
        if pickled_file(folder):
            what = "its weights are pickled: opening them could run any code"
            raise _unusable(
                adapter,
                what,
                "load it on a safe machine and save it as safetensors: PeftModel.save_pretrained",
            )
        raise _unusable(adapter, f"there is no {WEIGHTS}", "name a folder that PEFT has saved")
    config = json_object(folder / CONFIG)
    if config.get("peft_type") != "LORA":
        kind = str(config.get("peft_type"))[:40]
        raise _unusable(adapter, f"it is not a LoRA adapter but {kind}", "use a LoRA adapter")
    return config


def _misfit(adapter: Adapter, why: str) -> Refused:
    base = adapter.config.get("base_model_name_or_path") or "another model"
    what = f"it was made for {base} and does not fit this model: {why}"
    return _unusable(adapter.name, what)


def _unusable(
    adapter: str,
    what: str,
    hint: str = "name the model that it was made for, or another adapter",
) -> Refused:
    return Refused("bad_checkpoint", f"cannot use the adapter {adapter}: {what}", hint)
