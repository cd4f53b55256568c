"""Engines: each loads one kind of quantized model. A new one is a module with `load`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from quantchat.wire.messages import FETCHING, IMPORTING, Load, Progress
from quantchat.worker.failures import Refused
from quantchat.worker.model.devices import make_current
from quantchat.worker.model.files_check import check_files, check_kind
from quantchat.worker.model.hub import checkpoint, described
from quantchat.worker.model.loaded import Loaded
from quantchat.worker.model.tokenizer import fetch_lent

if TYPE_CHECKING:
    from quantchat.worker.model.adapter import Adapter

_MODULES = {
    "auto-gptq": "quantchat.worker.loaders.auto_gptq",
    "bitsandbytes": "quantchat.worker.loaders.bitsandbytes",
    "gptq": "quantchat.worker.loaders.gptq",
    "transformers": "quantchat.worker.loaders.transformers",
}


def load(
    command: Load,
    stage: Callable[[str], None],
    fetching: Callable[[int, int], None] = lambda done, total: None,
    building: Callable[[Progress], None] = lambda progress: None,
) -> Loaded:
    """Load what `command` names; `stage` is told when the weights' turn comes.

    What lies on a hub is fetched first; `fetching` hears how many bytes of how many have come.
    `building` hears how far the compiling of a kernel is.
    Raises Refused for what the engine does not do, and whatever the libraries raise.
    """
    if command.engine not in _MODULES:
        raise Refused("unsupported", f"no engine is named {command.engine!r}")
    asked, options, note = command, command.options, ""
    gguf = bool(options.get("gguf_file"))
    if Path(command.model).is_dir():
        check_kind(command.model, command.engine, gguf=gguf)
    else:
        stage(FETCHING)
        check_kind(str(described(command)), command.engine, gguf=gguf)
        found = checkpoint(command, fetching)
        command, note = replace(command, model=str(found.folder), revision=None), found.note
    command = fetch_lent(command)
    stage(IMPORTING)
    import torch

    check_files(command.model, gguf=gguf, tokenizer="tokenizer" not in options)
    if command.threads:
        torch.set_num_threads(command.threads)
    adapter = _adapter(command.options.get("adapter"))
    more = {"building": building} if command.engine == "gptq" else {}
    engine = importlib.import_module(_MODULES[command.engine])
    loaded: Loaded = engine.load(command, stage, **more)
    loaded.command = asked
    loaded.note = "; ".join(filter(None, (note, loaded.note)))
    if adapter is not None:
        from quantchat.common.adapter_folder import digest
        from quantchat.worker.model.adapter import attach

        attach(loaded.model, adapter)
        loaded.set_adapter(adapter.kind, digest(adapter.folder))
    make_current(loaded.input_device)
    return loaded


def _adapter(name: str | None) -> Adapter | None:
    """The adapter `name`, looked over before the model is loaded: that may take minutes."""
    if not name:
        return None
    from quantchat.worker.model.adapter import opened

    return opened(name)
