"""Engines: each loads one kind of quantized model. A new one is a module with `load`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from quantchat.worker.engines.files_check import check_files
from quantchat.worker.engines.loaded import Loaded
from quantchat.worker.failures import Refused
from quantchat.worker.protocol import Load

if TYPE_CHECKING:
    from quantchat.worker.engines.adapter import Adapter

_MODULES = {
    "auto-gptq": "quantchat.worker.engines.auto_gptq_engine",
    "bitsandbytes": "quantchat.worker.engines.bitsandbytes_engine",
    "gptq": "quantchat.worker.engines.gptq_engine",
    "transformers": "quantchat.worker.engines.transformers_engine",
}


def load(command: Load, stage: Callable[[str], None]) -> Loaded:
    """Load what `command` names; `stage` is told when the weights' turn comes.

    Raises Refused for what the engine does not do, and whatever the libraries raise.
    """
    import torch

    if command.engine not in _MODULES:
        raise Refused("unsupported", f"no engine is named {command.engine!r}")
    check_files(command.model, gguf=bool(command.options.get("gguf_file")))
    if command.threads:
        torch.set_num_threads(command.threads)
    adapter = _adapter(command.options.get("adapter"))
    loaded: Loaded = importlib.import_module(_MODULES[command.engine]).load(command, stage)
    if adapter is not None:
        from quantchat.worker.engines.adapter import attach, digest

        attach(loaded.model, adapter)
        loaded.wear(adapter.kind, digest(adapter.folder))
    return loaded


def _adapter(name: str | None) -> Adapter | None:
    """The adapter `name`, looked over before the model is loaded: that may take minutes."""
    if not name:
        return None
    from quantchat.worker.engines.adapter import opened

    return opened(name)
