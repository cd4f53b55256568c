"""A checkpoint's files, looked over before a library opens them: which is damaged is said by name.

Costs milliseconds: JSON is parsed, of safetensors only the headers are read.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quantchat.common.input_files import MOST_JSON, open_regular, read_regular
from quantchat.common.model_folder import CONFIG, DESCRIBING, FolderReader, ModelFolder, Problem
from quantchat.worker.failures import Refused

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
"""Of SentencePiece's and tiktoken's files, whatever their names."""
_TEKKEN = "tekken.json"
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
_LONGEST_HEADER = 100_000_000
"""Bytes; the safetensors library takes no longer one (its MAX_HEADER_SIZE)."""
_AGAIN = "fetch or copy that file again; what was made here, `quantchat cache remove` makes anew"


def folder_of(model: str) -> ModelFolder:
    """What the small files in the folder `model` say. Raises Refused where one is damaged."""
    folder = Path(model)
    return ModelFolder(
        {name: json_object(folder / name) for name in DESCRIBING if (folder / name).exists()},
        frozenset(file.name for file in folder.iterdir()),
    )


def check_kind(model: str, reader: FolderReader, *, gguf: bool = False) -> None:
    """Refuse a folder that its engine's library cannot load, or would load otherwise than it looks.

    Reads the small files alone, so that it can be asked before the weights are fetched. `gguf`: the
    weights come from a GGUF file. Raises Refused.
    """
    found = folder_of(model)
    for problem in found.problems(reader, gguf=gguf):
        raise _refused(problem)
    for problem in found.missing_packages(reader, gguf=gguf):
        raise _refused(problem)


def quantization_method(model: str) -> str:
    """How the files in the folder `model` call their quantization; empty in full precision.

    Raises Refused.
    """
    found = folder_of(model).quantization
    return str(found.get("quant_method", "quantized")) if found else ""


def check_files(model: str, *, gguf: bool = False, tokenizer: bool = True) -> None:
    """Refuse a folder in which a file is missing, cut short or not what it should be.

    `gguf`: the weights and the tokenizer come from a GGUF file, which is not looked at. Without
    `tokenizer` it comes from elsewhere. An id of a hub is let pass. Raises Refused.
    """
    folder = Path(model)
    if not folder.is_dir():
        return
    for file in folder.iterdir():
        if file.exists() and not file.is_file() and not file.is_dir():
            # A library would open it: a FIFO waits for its writer, a device has no end.
            raise _damaged(folder, file.name, "is no regular file")
    bodies = {name: json_object(folder / name) for name in _JSON if (folder / name).exists()}
    if gguf:
        return
    if CONFIG not in bodies:
        raise _damaged(folder, CONFIG, "is missing")
    _refuse_kernels(bodies[CONFIG])
    held = {file.name: tensor_names(file) for file in sorted(folder.glob("*.safetensors"))}
    if _INDEX in bodies:
        _check_index(folder, bodies[_INDEX], held)
    elif held and "model.safetensors" not in held and all(map(_SHARD.fullmatch, held)):
        raise _damaged(folder, _INDEX, "is missing")
    if tokenizer:
        check_tokenizer(folder)


def _refuse_kernels(config: Any) -> None:
    """Refuse a config that names a kernel of a hub: transformers fetches and runs its code."""
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
                        f"config.json asks for the kernel {kernel} of a hub, which is code ({key})",
                        "take that key out of a copy of the model; `attention` in the profile"
                        " chooses among those that are installed",
                    )
        else:
            _refuse_kernels(value)


def check_tokenizer(folder: Path) -> None:
    """Refuse a folder without the files of a tokenizer. Raises Refused."""
    if any(f.name in _TOKENIZERS or f.suffix in _MODELS for f in folder.iterdir()):
        return
    if (folder / _TEKKEN).exists():
        raise Refused(
            "unsupported",
            f"the only tokenizer in {folder} is {_TEKKEN}, Mistral's own format",
            'name a model with the same tokenizer as tokenizer.json: tokenizer = "org/name"',
        )
    raise _damaged(folder, "tokenizer.json", "is missing")


def _check_index(folder: Path, index: dict[str, Any], held: dict[str, set[str]]) -> None:
    places = index.get("weight_map")
    if not isinstance(places, dict):
        raise _damaged(folder, _INDEX, "has no weight_map")
    for tensor, file in places.items():
        if file not in held:
            raise _damaged(folder, str(file), f"is missing, and {_INDEX} names it")
        if tensor not in held[file]:
            raise _damaged(folder, file, f"lacks the tensor {tensor}, which {_INDEX} names")


def json_object(file: Path) -> dict[str, Any]:
    """The JSON object in `file`. Raises Refused."""
    try:
        with _file_itself(file):
            body = json.loads(read_regular(file, MOST_JSON))
    except (ValueError, RecursionError) as error:
        raise _damaged(file.parent, file.name, "is no JSON, or cut short") from error
    if not isinstance(body, dict):
        raise _damaged(file.parent, file.name, "is not what it should be: no JSON object")
    return body


def tensor_names(file: Path) -> set[str]:
    """Names of the tensors in the safetensors `file`, which must be as long as its header says.

    The format: 8 bytes with the header's length, little-endian; the header, JSON; the data.
    Raises Refused.
    """
    with _file_itself(file), open_regular(file) as stream:
        size = os.fstat(stream.fileno()).st_size
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(_LONGEST_HEADER, size - 8):
            raise _damaged(file.parent, file.name, "is cut short, or its header is damaged")
        try:
            header = json.loads(stream.read(length))
            ends = {
                name: int(told["data_offsets"][1])
                for name, told in header.items()
                if name != "__metadata__"
            }
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise _damaged(file.parent, file.name, "has a damaged header") from error
    there, wanted = size - 8 - length, max(ends.values(), default=0)
    if there != wanted:
        what = f"is cut short: {there} of {wanted} bytes" if there < wanted else "is too long"
        raise _damaged(file.parent, file.name, what)
    return set(ends)


def _refused(problem: Problem) -> Refused:
    return Refused(problem.kind, problem.what, problem.hint)


@contextlib.contextmanager
def _file_itself(file: Path) -> Iterator[None]:
    """Refuse what is no file, or a far too large one. Raises Refused; OSError of the disk's."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EFBIG, errno.EISDIR):
            raise
        raise _damaged(file.parent, file.name, f"cannot be read: {error.strerror}") from error


def _damaged(folder: Path, file: str, what: str) -> Refused:
    return Refused("bad_checkpoint", f"cannot load {folder}: {file} {what}", _AGAIN)
