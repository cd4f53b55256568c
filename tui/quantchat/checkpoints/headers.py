"""Reads what a model's files say of it: `config.json` and the headers of its safetensors.

A safetensors file begins with 8 bytes, the length of a JSON header in little-endian order, and that
header names each tensor's dtype and shape (the format's specification). No weight is read, and
nothing is downloaded but config and headers, where a hub can be reached.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from quantchat import paths
from quantchat.checkpoints.gguf_header import read_gguf
from quantchat.checkpoints.sources import Named
from quantchat.common.input_files import MOST_JSON, open_regular, read_regular
from quantchat.common.model_folder import CONFIG, QUANTIZE_CONFIGS
from quantchat.errors import UserError
from quantchat.estimate.model_files import ModelFiles, TensorInfo
from quantchat.text import one_line

MOST_HEADER = 100_000_000
"""Longest header there may be, in bytes: the format's own limit."""

Place = tuple[Path, int, int]
"""Where a tensor's bytes lie: the file, the first byte and the one behind the last."""

_SAMPLES, _SAMPLE = 64, 4096
"""How many stretches of two tensors are compared, and how many bytes of each."""

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
    raise _not_here(named)


def _not_here(named: Named) -> UserError:
    return UserError(
        "its files are not here yet",
        where=one_line(named.model),
        hint="they are known once the model was downloaded",
    )


def read_gguf_of(named: Named, name: str) -> ModelFiles:
    """What the header of the GGUF file `name` says, in the folder of `named` or in the cache.

    A hub is not asked: it tells the header of no GGUF file. Raises UserError.
    """
    folder = named.folder or _cached(named, name)
    if folder is None:
        raise _not_here(named)
    return read_gguf(folder / name)


def _cached(named: Named, file: str = CONFIG) -> Path | None:
    """The folder in the Hugging Face cache, whole or in part, if `file` is there."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(
            named.model, file, cache_dir=paths.hub_cache(), revision=named.revision
        )
    except HFValidationError:  # a name that no hub has
        return None
    return Path(found).parent if isinstance(found, str) else None


def read_folder(folder: Path) -> ModelFiles:
    """What the files in `folder` say. Raises UserError."""
    config = _json(folder / CONFIG)
    tensors: dict[str, TensorInfo] = {}
    places: dict[str, Place] = {}
    for file in _weight_files(folder):
        found, where = _header(file)
        tensors |= found
        places |= where
    files = ModelFiles(config, tensors, _others(folder), _names(folder))
    for name in files.tied_heads:
        if _is_copy(places[name], (places[other] for other in files.embeddings)):
            del tensors[name]
    return files


def _names(folder: Path) -> frozenset[str]:
    try:
        return frozenset(file.name for file in folder.iterdir())
    except OSError as error:
        raise _cannot_read(folder, error) from error


def _others(folder: Path) -> dict[str, dict[str, object]]:
    return {name: _json(folder / name) for name in QUANTIZE_CONFIGS if (folder / name).is_file()}


def _is_copy(one: Place, others: Iterable[Place]) -> bool:
    """Whether the tensor at `one` holds the same bytes as one of `others`, by samples of both.

    transformers 5 ties an output head to the embedding only where both are equal; else it keeps
    both, whatever the config says (`tie_weights`).
    """
    return any(_samples(one) == _samples(other) for other in others)


def _samples(place: Place) -> list[bytes]:
    file, start, end = place
    steps = range(start, max(end, start + 1), max(1, (end - start) // _SAMPLES))
    try:
        with file.open("rb") as stream:
            return [_read_at(stream, at, min(_SAMPLE, end - at)) for at in steps]
    except OSError as error:
        raise _cannot_read(file, error) from error


def _read_at(stream: BinaryIO, at: int, count: int) -> bytes:
    stream.seek(at)
    return stream.read(count)


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
            hint="only safetensors headers tell sizes without loading",
        )
    return files


def _header(file: Path) -> tuple[dict[str, TensorInfo], dict[str, Place]]:
    """The tensors in `file`, and where each lies."""
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
    tensors = {name: _tensor(file, described) for name, described in header.items()}
    return tensors, {name: _place(file, length, header[name]) for name in tensors}


def _place(file: Path, length: int, described: dict[str, object]) -> Place:
    offsets = described.get("data_offsets")
    both = offsets if isinstance(offsets, list) and len(offsets) == 2 else [0, 0]
    start, end = (8 + length + n if type(n) is int and 0 <= n < 2**48 else 0 for n in both)
    return file, start, end


def _tensor(file: Path, described: Any) -> TensorInfo:
    if isinstance(described, dict):
        dtype, shape = described.get("dtype"), described.get("shape")
        sizes: list[Any] = shape if isinstance(shape, list) else [None]
        if isinstance(dtype, str) and all(type(n) is int and 0 <= n < 2**48 for n in sizes):
            return TensorInfo(dtype, tuple(sizes))
    raise _not_understood(file, "describes a tensor without dtype and shape")


def _json(file: Path) -> dict[str, object]:
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
        told = HfApi().model_info(named.model, revision=named.revision)
        names = frozenset(file.rfilename for file in told.siblings or [])
        small = {
            name: Path(hf_hub_download(named.model, name, revision=named.revision))
            for name in (CONFIG, *(name for name in QUANTIZE_CONFIGS if name in names))
        }
    except Exception as error:
        raise UserError(
            f"its files are not here, and the hub did not tell: {one_line(str(error))[:200]}",
            where=one_line(named.model),
            hint="download it first, check the network, or `hf auth login` for a gated model",
        ) from error
    tensors = {
        name: TensorInfo(str(tensor.dtype), tuple(tensor.shape))
        for file in found.files_metadata.values()
        for name, tensor in file.tensors.items()
    }
    config = _json(small.pop(CONFIG))
    return ModelFiles(config, tensors, {name: _json(file) for name, file in small.items()}, names)


def _cannot_read(file: Path, error: OSError) -> UserError:
    return UserError(f"cannot be read: {error.strerror or error}", where=one_line(str(file)))


def _not_understood(file: Path, what: str) -> UserError:
    return UserError(
        what, where=one_line(str(file)), hint="the model may be damaged: fetch it anew"
    )
