"""Load GGUF files with llama.cpp, through llama-cpp-python; torch is not imported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from quantchat.common.gguf import ANY, BadGguf, choose_file, parts, read_header
from quantchat.wire.messages import FETCHING, IMPORTING, WEIGHTS, LoadModel
from quantchat.worker.failures import Refused
from quantchat.worker.model.chat_template import check_template
from quantchat.worker.model.hub import gguf_files
from quantchat.worker.model.tokenizer import fetch_named, load_tokenizer

if TYPE_CHECKING:
    from quantchat.worker.llama.model import LlamaModel

ALONE = True


def load(
    command: LoadModel,
    stage: Callable[[str], None],
    fetching: Callable[[int, int], None] = lambda done, total: None,
) -> LlamaModel:
    """Load a GGUF file. Raises Refused if there is none, or if llama.cpp cannot load it.

    Calls `stage` with the name of each stage, and `fetching` with the downloaded and total bytes.
    `options`: `gguf_file`, the name of a file or a quantization (see
    `quantchat.common.gguf.choose_file`); and `n_gpu_layers`, `n_ctx`, `type_k`, `type_v` and
    `mmap`, which mean the same as in llama.cpp.
    """
    requested, note = command, ""
    wanted = command.option("gguf_file", "") or ANY
    if not Path(command.model).is_dir():
        stage(FETCHING)
        folder, note = gguf_files(command, wanted, fetching)
        command = replace(command, model=str(folder), revision=None)
    command = fetch_named(command)
    stage(IMPORTING)
    from quantchat.worker.llama import library
    from quantchat.worker.llama.model import LlamaModel

    library.start()
    file = _file(Path(command.model), wanted)
    try:
        header = read_header(file)
    except BadGguf as error:
        raise Refused("bad_checkpoint", f"{file.name} {error}", error.hint) from error
    tokenizer = load_tokenizer(command) if command.option("tokenizer", "") else None
    stage(WEIGHTS)
    loaded = LlamaModel(command, file, header)
    if tokenizer is not None:
        loaded.use_tokenizer(tokenizer)
    else:
        check_template(loaded.tokenizer, command.template_variables)
    loaded.command = requested
    loaded.note = "; ".join(filter(None, (note, loaded.note)))
    return loaded


def _file(folder: Path, wanted: str) -> Path:
    """Return the GGUF file in `folder` that `wanted` names (see `choose_file`).

    For a model that is split into several files, return the first. Raises Refused if `wanted` does
    not name exactly one model, or if a file of a split model is missing.
    """
    names = [str(file.relative_to(folder)) for file in folder.rglob(ANY)]
    try:
        file = folder / choose_file(names, wanted)
    except BadGguf as error:
        raise Refused("bad_checkpoint", f"{folder} {error}", error.hint) from error
    for part in parts(file):
        if not part.is_file():
            raise Refused(
                "bad_checkpoint",
                f"a part of the model is missing: {part.name}",
                "download all of its parts into one folder",
            )
    return file
