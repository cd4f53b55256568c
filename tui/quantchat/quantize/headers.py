"""Reads what a model's files say of it: `config.json` and the headers of its safetensors.

A safetensors file begins with 8 bytes, the length of a JSON header in little-endian order, and that
header names each tensor's dtype and shape (the format's specification). No weight is read, and
nothing is downloaded but config and headers, where a hub can be reached.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantchat import paths
from quantchat.errors import UserError
from quantchat.metrics.model_files import ModelFiles, TensorInfo
from quantchat.quantize.sources import Named
from quantchat.text import one_line
from quantchat.worker.input_files import MOST_JSON, open_regular, read_regular

MOST_HEADER = 100_000_000
"""Longest header there may be, in bytes: the format's own limit."""

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"


def read(named: Named, *, fetch: bool) -> ModelFiles:
    """What the files of `named` say, in its folder or in the Hugging Face cache.

    `fetch`: ask the hub for config and headers where the cache has not got them. Raises UserError.
    """
    if named.folder is not None:
        return read_folder(named.folder)
    folder = _cached(named)
    if folder is not None:
        # The cache may have the config, and not all the weights.
        with contextlib.suppress(UserError):
            return read_folder(folder)
    if fetch:
        return _fetched(named)
    raise UserError(
        "its files are not here yet",
        where=one_line(named.model),
        mend="they are known once the model was downloaded",
    )


def _cached(named: Named) -> Path | None:
    """The folder in the Hugging Face cache, whole or in part."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        config = try_to_load_from_cache(
            named.model, "config.json", cache_dir=paths.hub_cache(), revision=named.revision
        )
    except HFValidationError:  # a name that no hub has
        return None
    return Path(config).parent if isinstance(config, str) else None


def read_folder(folder: Path) -> ModelFiles:
    """What the files in `folder` say. Raises UserError."""
    config = _json(folder / "config.json")
    tensors: dict[str, TensorInfo] = {}
    for file in _weight_files(folder):
        tensors |= _header(file)
    return ModelFiles(config, tensors)


def _weight_files(folder: Path) -> list[Path]:
    """The files that are loaded, as transformers chooses them."""
    if (folder / _INDEX).is_file():
        shards = _json(folder / _INDEX).get("weight_map")
        if not isinstance(shards, Mapping):
            raise _not_understood(folder / _INDEX, "names no files")
        # By its last name only: an index from outside must not lead out of the folder.
        return [folder / Path(str(name)).name for name in sorted(set(map(str, shards.values())))]
    if (folder / _SINGLE).is_file():
        return [folder / _SINGLE]
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(
            "holds no safetensors",
            where=one_line(str(folder)),
            mend="only safetensors headers tell sizes without loading",
        )
    return files


def _header(file: Path) -> dict[str, TensorInfo]:
    try:
        with open_regular(file) as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= MOST_HEADER:
                raise _not_understood(file, "is no safetensors file")
            header = json.loads(stream.read(length))
    except OSError as error:
        raise _cannot_read(file, error) from error
    except (ValueError, RecursionError) as error:
        raise _not_understood(file, "has a header that is not JSON") from error
    if not isinstance(header, dict):
        raise _not_understood(file, "has a header that is no table")
    header.pop("__metadata__", None)
    return {name: _tensor(file, described) for name, described in header.items()}


def _tensor(file: Path, described: Any) -> TensorInfo:
    if isinstance(described, dict):
        dtype, shape = described.get("dtype"), described.get("shape")
        sizes: list[Any] = shape if isinstance(shape, list) else [None]
        if isinstance(dtype, str) and all(type(n) is int and 0 <= n < 2**48 for n in sizes):
            return TensorInfo(dtype, tuple(sizes))
    raise _not_understood(file, "describes a tensor without dtype and shape")


def _json(file: Path) -> dict[str, Any]:
    try:
        body = json.loads(read_regular(file, MOST_JSON))
    except OSError as error:
        raise _cannot_read(file, error) from error
    except (ValueError, RecursionError) as error:
        raise _not_understood(file, "is not JSON") from error
    if not isinstance(body, dict):
        raise _not_understood(file, "is no table")
    return body


def _fetched(named: Named) -> ModelFiles:
    """Ask the hub. The library raises what its network stack does, so any of it means no answer."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from huggingface_hub import HfApi, hf_hub_download

    try:
        # The headers first: where there is no network this fails at once and is not retried.
        found = HfApi().get_safetensors_metadata(named.model, revision=named.revision)
        config = hf_hub_download(named.model, "config.json", revision=named.revision)
    except Exception as error:
        raise UserError(
            f"its files are not here, and the hub did not tell: {one_line(str(error))[:200]}",
            where=one_line(named.model),
            mend="download it first, check the network, or `hf auth login` for a gated model",
        ) from error
    tensors = {
        name: TensorInfo(str(tensor.dtype), tuple(tensor.shape))
        for file in found.files_metadata.values()
        for name, tensor in file.tensors.items()
    }
    return ModelFiles(_json(Path(config)), tensors)


def _cannot_read(file: Path, error: OSError) -> UserError:
    return UserError(f"cannot be read: {error.strerror or error}", where=one_line(str(file)))


def _not_understood(file: Path, what: str) -> UserError:
    return UserError(
        what, where=one_line(str(file)), mend="the model may be damaged: fetch it anew"
    )
