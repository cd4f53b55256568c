"""Check the files of a checkpoint before a library opens them, and name the file that is damaged.

This takes milliseconds: JSON files are parsed, and only the headers of safetensors files are read.
Pickled weights are refused, because opening a pickle runs any code that it contains.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from quantchat.common.input_files import MOST_JSON, open_regular, read_regular
from quantchat.common.model_folder import CONFIG, DESCRIBING, ModelFolder
from quantchat.wire.library import FolderReader
from quantchat.worker.failures import Refused
from quantchat.worker.import_pruning import unhide

_INDEX = "model.safetensors.index.json"
_JSON = (
    *DESCRIBING,
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    _INDEX,
)
_TOKENIZERS = ("tokenizer.json", "vocab.json", "vocab.txt")
_MODELS = (".model", ".tiktoken")
"""Endings of the tokenizer files of SentencePiece and tiktoken, whose names vary."""
_TEKKEN = "tekken.json"
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
_LONGEST_HEADER = 100_000_000
"""Longest header of a safetensors file in bytes, as in the safetensors library
(MAX_HEADER_SIZE)."""
_DAMAGED_HINT = (
    "download or copy that file again; if quantchat built the checkpoint, `quantchat cache remove` "
    "deletes it, and the next start builds it again"
)

PICKLES = frozenset({".bin", ".ckpt", ".pkl", ".pt", ".pth"})
"""Endings of files that torch and transformers write with pickle."""
CONVERT = (
    "convert them on a safe machine: AutoModelForCausalLM.from_pretrained(…).save_pretrained(…)"
)
ALLOW = "or, if you trust their source, add allow_pickle = true to the variant"


def folder_of(model: str) -> ModelFolder:
    """Return the parsed JSON files that describe the model in the folder `model`.

    The result also has the names of all files. Raises Refused if one of the JSON files is damaged.
    """
    folder = Path(model)
    return ModelFolder(
        {name: json_object(folder / name) for name in DESCRIBING if (folder / name).exists()},
        frozenset(file.name for file in folder.iterdir()),
    )


def check_kind(model: str, reader: FolderReader, *, gguf: bool = False) -> None:
    """Raise Refused for a folder `model` that the engine's library cannot load, or loads wrongly.

    `reader` says how this library reads a folder; `gguf` says that the weights come from a GGUF
    file. Only small files are read, so the weights need not be downloaded yet. Also ends the hiding
    (`import_pruning`) of libraries that the checkpoint's quantization needs.
    """
    found = folder_of(model)
    for problem in found.problems(reader, gguf=gguf):
        raise Refused(problem.kind, problem.what, problem.hint)
    if not gguf:
        unhide(_method(found))  # otherwise hidden libraries would be reported as missing
    for problem in found.missing_packages(reader, gguf=gguf):
        raise Refused(problem.kind, problem.what, problem.hint)


def quantization_method(model: str) -> str:
    """Return the quantization method that the config in the folder `model` names, else "".

    Raises Refused if a file is damaged.
    """
    return _method(folder_of(model))


def _method(folder: ModelFolder) -> str:
    found = folder.quantization
    return str(found.get("quant_method", "quantized")) if found else ""


def check_files(model: str, *, gguf: bool = False, tokenizer: bool = True) -> None:
    """Raise Refused if a file in the folder `model` is missing, damaged or not a regular file.

    Also raises Refused if the config names a kernel on the hub. `gguf` says that weights and
    tokenizer come from a GGUF file, which is not checked here. `tokenizer` says whether the folder
    must contain a tokenizer. If `model` is not a folder but a model id of the hub, nothing is
    checked.
    """
    folder = Path(model)
    if not folder.is_dir():
        return
    for file in folder.iterdir():
        if file.exists() and not file.is_file() and not file.is_dir():
            # A library would open it and block: a FIFO waits for a writer, a device never ends.
            raise _damaged(folder, file.name, "is not a regular file")
    bodies = {name: json_object(folder / name) for name in _JSON if (folder / name).exists()}
    if gguf:
        return
    if CONFIG not in bodies:
        raise _damaged(folder, CONFIG, "is missing")
    _refuse_kernels(bodies[CONFIG])
    tensors_by_file = {
        file.name: tensor_names(file) for file in sorted(folder.glob("*.safetensors"))
    }
    if _INDEX in bodies:
        _check_index(folder, bodies[_INDEX], tensors_by_file)
    elif (
        tensors_by_file
        and "model.safetensors" not in tensors_by_file
        and all(map(_SHARD.fullmatch, tensors_by_file))
    ):
        raise _damaged(folder, _INDEX, "is missing")
    if tokenizer:
        check_tokenizer(folder)


def _refuse_kernels(config: Any) -> None:
    """Raise Refused if the config names a kernel on the hub.

    transformers would download the kernel and run its code.
    """
    if isinstance(config, list):
        for one in config:
            _refuse_kernels(one)
    for key, value in config.items() if isinstance(config, dict) else ():
        named = value.values() if isinstance(value, dict) else [value]
        if key.endswith("_implementation"):
            for kernel in named:
                if isinstance(kernel, str) and "/" in kernel:
                    raise Refused(
                        "unsupported",
                        f"config.json names the kernel {kernel} of the hub, which is code ({key})",
                        "remove that key in a copy of the model; to choose an installed kernel, set"
                        " `attention` in the profile",
                    )
        else:
            _refuse_kernels(value)


def check_tokenizer(folder: Path) -> None:
    """Raise Refused if there is no tokenizer in `folder`."""
    if any(f.name in _TOKENIZERS or f.suffix in _MODELS for f in folder.iterdir()):
        return
    if (folder / _TEKKEN).exists():
        raise Refused(
            "unsupported",
            f"the only tokenizer in {folder} is {_TEKKEN}, Mistral's own format",
            'name a model that has this tokenizer as tokenizer.json: tokenizer = "org/name"',
        )
    raise _damaged(folder, "tokenizer.json", "is missing")


def _check_index(
    folder: Path, index: Mapping[str, object], tensors_by_file: dict[str, set[str]]
) -> None:
    places = index.get("weight_map")
    if not isinstance(places, dict):
        raise _damaged(folder, _INDEX, "has no weight_map")
    for tensor, file in places.items():
        if file not in tensors_by_file:
            raise _damaged(folder, str(file), f"is missing, and {_INDEX} names it")
        if tensor not in tensors_by_file[file]:
            raise _damaged(folder, file, f"lacks the tensor {tensor}, which {_INDEX} names")


def json_object(file: Path) -> dict[str, Any]:
    """Return the JSON object in `file`. Raises Refused if there is none."""
    try:
        with _readable(file):
            body = json.loads(read_regular(file, MOST_JSON))
    except (ValueError, RecursionError) as error:
        raise _damaged(file.parent, file.name, "is not JSON, or is cut short") from error
    if not isinstance(body, dict):
        raise _damaged(file.parent, file.name, "is not a JSON object")
    return body


def tensor_names(file: Path) -> set[str]:
    """Return the names of the tensors in the safetensors `file`.

    The format (https://huggingface.co/docs/safetensors): 8 bytes with the length of the header,
    little-endian; the header in JSON; the data. Raises Refused if the header is damaged or the file
    is not as long as the header says.
    """
    with _readable(file), open_regular(file) as stream:
        size = os.fstat(stream.fileno()).st_size
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(_LONGEST_HEADER, size - 8):
            raise _damaged(file.parent, file.name, "is cut short, or its header is damaged")
        try:
            header = json.loads(stream.read(length))
            ends = {
                name: int(entry["data_offsets"][1])
                for name, entry in header.items()
                if name != "__metadata__"
            }
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise _damaged(file.parent, file.name, "has a damaged header") from error
    there, wanted = size - 8 - length, max(ends.values(), default=0)
    if there != wanted:
        what = f"is cut short: {there} of {wanted} bytes" if there < wanted else "is too long"
        raise _damaged(file.parent, file.name, what)
    return set(ends)


@contextlib.contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Within this context, raise Refused if `file` is not a regular file, or too large.

    Other OSErrors are not caught.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EFBIG, errno.EISDIR):
            raise
        raise _damaged(file.parent, file.name, f"cannot be read: {error.strerror}") from error


def _damaged(folder: Path, file: str, what: str) -> Refused:
    return Refused("bad_checkpoint", f"cannot load {folder}: {file} {what}", _DAMAGED_HINT)


# ------------------------------------------------------------ quantized or pickled weights


def refuse_quantized(folder: str) -> None:
    """Raise Refused if the model in `folder` is already quantized, or has no readable config."""
    try:
        config = json.loads(read_regular(Path(folder, "config.json"), MOST_JSON))
    except (OSError, ValueError) as error:
        raise Refused(
            "bad_checkpoint",
            f"{folder} has no config.json that can be read",
            "name a folder that holds a model (config.json and *.safetensors)",
        ) from error
    if quantization := config.get("quantization_config"):
        raise Refused(
            "unsupported",
            # Only old bitsandbytes checkpoints do not name a method.
            f"the model is already quantized ({quantization.get('quant_method', 'bitsandbytes')})",
            "name the full-precision model from which it was made",
        )


def pickled_file(folder: Path) -> Path | None:
    """Return the first file in `folder` whose ending is that of a pickle, or None."""
    return next((f for f in sorted(folder.iterdir()) if f.suffix in PICKLES), None)


def refuse_pickled(model: str, *, has_option: bool) -> None:
    """Raise Refused if the folder `model` has only pickled weights.

    `has_option` says whether the engine has the option `allow_pickle`. If `model` is not a folder
    but a model id of the hub, nothing is checked.
    """
    folder = Path(model)
    if not folder.is_dir() or any(folder.glob("*.safetensors")):
        return
    pickled = pickled_file(folder)
    if pickled is not None:
        raise _pickled(f"the weights are pickled ({pickled.name})", has_option=has_option)


def refuse_all_pickled(folder: Path, model: str, *, has_option: bool) -> None:
    """Raise Refused if the model id `model` of the hub has only pickled weights.

    Pickled weights are not downloaded, so `folder`, which holds the downloaded files, then has no
    safetensors. `has_option` says whether the engine has the option `allow_pickle`.
    """
    if not any(folder.glob("*.safetensors")):
        what = f"{model} has no safetensors, and other weights are pickled"
        raise _pickled(what, has_option=has_option)


def _pickled(what: str, *, has_option: bool) -> Refused:
    hint = f"{CONVERT}; {ALLOW}" if has_option else CONVERT
    return Refused("bad_checkpoint", f"{what}: opening them could run any code", hint)
