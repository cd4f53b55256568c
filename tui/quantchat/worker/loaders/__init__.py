"""Loaders: one module per engine, which loads the models of variants with this engine.

A loader is a module with the function `load(command, stage)`, which returns a `Loaded`. `command`
is the `LoadModel` message that asks for the model; `stage` is a callback that takes the name of
each stage of loading. The engine's declaration (`quantchat.engines`) names the module, and
`LoadModel.loader` holds that name. A loader may also define:

- `UNUSED`: libraries that its imports would load although no answer needs them; they are hidden
  from imports (`import_pruning`)
- `COMPILES = True`: `load` also takes `building`, a callback for the progress of compiling a kernel
- `ALONE = True`: `load(command, stage, fetching)` itself finds, downloads and checks the files, and
  returns a model that is not a torch model; `fetching` is a callback for the progress of downloads
- `SERVER = True`: `load(command)` returns a client of a server
- `kernels(device, tools)`: tries the engine's kernels on this machine, for the command `doctor`;
  `tools` are the compilers that were found
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from quantchat.common.kv_cache import KV_CACHES
from quantchat.wire.library import FolderReader
from quantchat.wire.messages import FETCHING, IMPORTING, PROMPT_LOOKUP, LoadModel, Progress
from quantchat.worker.failures import Refused
from quantchat.worker.import_pruning import hide, without_collection, without_compiler
from quantchat.worker.model.devices import make_current
from quantchat.worker.model.files_check import check_files, check_kind
from quantchat.worker.model.hub import checkpoint, small_files
from quantchat.worker.model.loaded import Loaded
from quantchat.worker.model.tokenizer import fetch_named

if TYPE_CHECKING:
    from quantchat.worker.decode.loop_decoder import LoopDecoder
    from quantchat.worker.llama.model import LlamaModel
    from quantchat.worker.model.adapter import Adapter


def loader_of(command: LoadModel) -> ModuleType:
    """Return the loader that `command` names, a module, without importing ML libraries.

    Raises Refused if there is no such module or a required library is missing.
    """
    for library in command.needs:
        if importlib.util.find_spec(library.module) is None:
            raise Refused(
                "missing_library",
                f"the engine {command.engine} needs the package {library.package}, which this"
                " interpreter lacks",
                library.command,
            )
    name = command.loader or f"{__name__}.{command.engine.replace('-', '_')}"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise Refused(
            "unsupported",
            f"the engine {command.engine} has no loader here: no module {name}",
            "install the engine's package in this interpreter's environment too"
            if command.loader
            else "",
        ) from error


def hide_unused(command: LoadModel) -> None:
    """Hide libraries that loading `command` does not need, so that importing them fails.

    transformers then treats them as not installed. Call this before ML libraries are imported. With
    `trust_remote_code` nothing is hidden, because the model's own code may need any library.
    """
    if command.trust_remote_code:
        return
    kv_cache = KV_CACHES.get(command.option("kv_cache", ""))
    needed = kv_cache.library.module if kv_cache and kv_cache.library else ""
    hide(name for name in getattr(loader_of(command), "UNUSED", ()) if name != needed)


def load(
    command: LoadModel,
    stage: Callable[[str], None],
    fetching: Callable[[int, int], None] = lambda done, total: None,
    building: Callable[[Progress], None] = lambda progress: None,
) -> Loaded:
    """Load the torch model that `command` names; download it first if it is not a local folder.

    Calls `stage` at the start of each stage (download, import, weights), `fetching` with the
    downloaded and total bytes, and `building` with the progress of compiling a kernel. Raises
    Refused for a model or setting that the engine does not support. Exceptions of the ML libraries
    are not caught.
    """
    loader = loader_of(command)
    requested, options, note = command, command.options, ""
    gguf = bool(options.get("gguf_file"))
    if Path(command.model).is_dir():
        check_kind(command.model, command.reader, gguf=gguf)
    else:
        stage(FETCHING)
        # Check the small files (such as config.json) before gigabytes of weights are downloaded.
        check_kind(str(small_files(command)), command.reader, gguf=gguf)
        found = checkpoint(command, fetching)
        command, note = replace(command, model=str(found.folder), revision=None), found.note
    command = fetch_named(command)
    stage(IMPORTING)
    importing = contextlib.ExitStack()

    def next_stage(name: str) -> None:
        importing.close()  # the first stage after the imports ends the pause of garbage collection
        stage(name)

    with importing, contextlib.ExitStack() as loading:
        importing.enter_context(without_collection())
        import torch

        loading.enter_context(without_needless_compiler(command))
        check_files(command.model, gguf=gguf, tokenizer="tokenizer" not in options)
        if command.threads:
            torch.set_num_threads(command.threads)
        adapter = _adapter(command.option("adapter", ""))
        more = {"building": building} if getattr(loader, "COMPILES", False) else {}
        loaded: Loaded = loader.load(command, next_stage, **more)
    loaded.command = requested
    loaded.note = "; ".join(filter(None, (note, loaded.note)))
    if adapter is not None:
        from quantchat.common.adapter_folder import digest
        from quantchat.worker.model.adapter import attach

        attach(loaded.model, adapter)
        loaded.set_adapter(adapter.kind, digest(adapter.folder))
    make_current(loaded.input_device)
    return loaded


def without_needless_compiler(command: LoadModel) -> contextlib.AbstractContextManager[None]:
    """Return a context in which torch's compiler is not imported, unless `command` may need it.

    The compiler may be needed for the decode mode `compile`, by the model's own code, and by a
    kernel on a GPU.
    """
    import torch

    kernels = getattr(loader_of(command), "COMPILES", False) and torch.cuda.is_available()
    needed = command.decode == "compile" or command.trust_remote_code or kernels
    return contextlib.nullcontext() if needed else without_compiler()


def load_any(
    command: LoadModel,
    stage: Callable[[str], None],
    fetching: Callable[[int, int], None] = lambda done, total: None,
    building: Callable[[Progress], None] = lambda progress: None,
) -> Loaded | LlamaModel:
    """Load the model that `command` names, whether or not it is a torch model.

    A loader with `ALONE = True` returns a model that is not a torch model. With any other loader,
    do as `load` does.
    """
    loader = loader_of(command)
    if getattr(loader, "ALONE", False):
        model: LlamaModel = loader.load(command, stage, fetching)
        return model
    return load(command, stage, fetching, building)


def load_draft(
    command: LoadModel, stage: Callable[[str], None], fetching: Callable[[int, int], None]
) -> Loaded | None:
    """Load the draft model that the option `draft` of `command` names; None if it names no model.

    The name is an absolute folder, `org/name` or `org/name@revision`. The draft model is loaded
    with the engine `transformers`. The settings `allow_pickle` and `trust_remote_code` of `command`
    apply to it too. Raises Refused as `load` does; the reason names the draft.
    """
    name = command.option("draft", "")
    if name in ("", PROMPT_LOOKUP):
        return None
    model, _, revision = (name, "", "") if Path(name).is_absolute() else name.partition("@")
    pickles = {k: v for k, v in command.options.items() if k == "allow_pickle"}
    drafting = replace(
        command,
        engine="transformers",
        loader="",
        model=model,
        revision=revision or None,
        options=pickles,
        needs=[],
        reader=FolderReader(),
    )
    try:
        return load(drafting, stage, fetching)
    except Refused as refused:
        failure = refused.failure
        raise Refused(
            failure.kind, f"the draft {name}: {failure.reason}", failure.hint
        ) from refused


def decoder_of(
    loaded: Loaded | LlamaModel,
    command: LoadModel,
    report: Callable[[str], None],
    draft: Loaded | None = None,
) -> LoopDecoder:
    """Return a decoder that generates with `loaded`, after its warm-up.

    Calls `report` with the name of each slow stage of the warm-up. The model `draft`, if there is
    one, drafts tokens for `loaded`.
    """
    if isinstance(loaded, Loaded):
        from quantchat.worker.decode.decoder import Decoder

        with without_needless_compiler(command):
            return Decoder(loaded, command.decode, report, draft)
    from quantchat.worker.llama.decoder import LlamaDecoder

    return LlamaDecoder(loaded)


def _adapter(name: str | None) -> Adapter | None:
    """Check the LoRA adapter `name` and return it; None if `name` is empty.

    Call this before the model is loaded: loading may take minutes, and a bad adapter should be
    reported at once.
    """
    if not name:
        return None
    from quantchat.worker.model.adapter import check_adapter

    return check_adapter(name)
