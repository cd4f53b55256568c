"""Read a model's `config.json` and the headers of its weight files, safetensors or GGUF.

A safetensors file begins with the length of a JSON header, 8 bytes in little-endian order; the
header lists each tensor's dtype and shape (source: the format's specification). Weights are not
loaded, and only config and headers are downloaded.
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
from quantchat.checkpoints.sources import ModelName
from quantchat.common import gguf
from quantchat.common.input_files import MOST_JSON, open_regular, read_regular
from quantchat.common.model_folder import CONFIG, QUANTIZE_CONFIGS
from quantchat.errors import UserError
from quantchat.estimate.model_files import ModelFiles, TensorInfo
from quantchat.text import one_line

MOST_HEADER = 100_000_000
"""Maximum length of a header in bytes: the limit of the safetensors format."""

Place = tuple[Path, int, int]
"""Where a tensor lies: the file, the offset of its first byte and the offset after its last."""

_SAMPLES, _SAMPLE = 64, 4096
"""Two tensors are compared by about this many samples of each, of this many bytes."""

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"


def read(named: ModelName, *, fetch: bool) -> ModelFiles:
    """Return the config and tensor headers of `named`, from its folder or the Hugging Face cache.

    With `fetch`, download config and headers from the hub if the cache lacks them. Raises
    UserError.
    """
    if named.folder is not None:
        return read_folder(named.folder)
    folder = _cached(named)
    if folder is not None:
        # The cache may have the config but not all weights.
        with contextlib.suppress(UserError):
            return read_folder(folder)
    if fetch:
        return _fetched(named)
    raise _not_here(named)


def _not_here(named: ModelName) -> UserError:
    return UserError(
        "the model's files are not on this machine yet",
        where=one_line(named.model),
        hint=f"download it first: hf download {one_line(named.model)}",
    )


def read_gguf_of(named: ModelName, wanted: str) -> ModelFiles:
    """Return the header of the GGUF file `wanted`, in the folder of `named` or the cache.

    `wanted` is the name of a file or of a quantization (see `gguf.choose_file`). The hub is not
    asked, because its API gives no headers of GGUF files. Raises UserError.
    """
    folder = named.folder or _snapshot(named)
    if folder is None:
        raise _not_here(named)
    names = [str(file.relative_to(folder)) for file in folder.rglob(f"*{gguf.SUFFIX}")]
    try:
        return read_gguf(folder / gguf.choose_file(names, wanted))
    except gguf.BadGguf as error:
        if named.folder is None:
            raise _not_here(named) from None
        raise UserError(str(error), where=one_line(named.model), hint=error.hint) from None


def _snapshot(named: ModelName) -> Path | None:
    """Return the folder of `named` in the Hugging Face cache, even if it lacks files, or None."""
    repository = paths.hub_cache() / f"models--{named.model.replace('/', '--')}"
    revision = named.revision or "main"
    with contextlib.suppress(OSError):
        revision = (repository / "refs" / revision).read_text(encoding="ascii").strip()
    folder = repository / "snapshots" / revision
    return folder if folder.is_dir() else None


def _cached(named: ModelName, file: str = CONFIG) -> Path | None:
    """Return the model's folder in the Hugging Face cache, or None if it lacks `file`."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(
            named.model, file, cache_dir=paths.hub_cache(), revision=named.revision
        )
    except HFValidationError:  # not a valid id of the hub
        return None
    return Path(found).parent if isinstance(found, str) else None


def read_folder(folder: Path) -> ModelFiles:
    """Return the config and tensor headers of the model in `folder`.

    Leaves out an output head that is a copy of the embedding it is tied to. Raises UserError.
    """
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
    """Return whether the tensor at `one` equals any tensor in `others`, judged by samples of each.

    transformers 5 ties an output head to the embedding only if both are equal; otherwise it loads
    both, even if the config ties them (`tie_weights`).
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
    """Return the weight files that transformers would load from `folder`. Raises UserError."""
    if (folder / _INDEX).is_file():
        shards = _json(folder / _INDEX).get("weight_map")
        if not isinstance(shards, Mapping):
            raise _not_understood(folder / _INDEX, "names no files")
        # Only the file's name: a downloaded index must not lead out of the folder.
        return [folder / Path(str(name)).name for name in sorted(set(map(str, shards.values())))]
    if (folder / _SINGLE).is_file():
        return [folder / _SINGLE]
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(
            "has no safetensors files",
            where=one_line(str(folder)),
            hint="quantchat reads sizes from safetensors headers: convert the weights",
        )
    return files


def _header(file: Path) -> tuple[dict[str, TensorInfo], dict[str, Place]]:
    """Return the tensors in `file`, and where each lies, by name. Raises UserError."""
    try:
        with open_regular(file) as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= MOST_HEADER:
                raise _not_understood(file, "is not a safetensors file")
            header = json.loads(stream.read(length))
    except OSError as error:
        raise _cannot_read(file, error) from error
    except (ValueError, RecursionError) as error:
        raise _not_understood(file, "has a header that is not JSON") from error
    if not isinstance(header, dict):
        raise _not_understood(file, "has a header that is not a JSON object")
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
        raise _not_understood(file, "is not a JSON object")
    return body


def _fetched(named: ModelName) -> ModelFiles:
    """Download config and tensor headers from the hub. Raises UserError.

    huggingface_hub does not catch all errors of its network libraries, so every exception counts as
    an error of the hub.
    """
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from huggingface_hub import HfApi, hf_hub_download

    try:
        # The headers first: without a network this call fails at once and does not retry.
        found = HfApi().get_safetensors_metadata(named.model, revision=named.revision)
        info = HfApi().model_info(named.model, revision=named.revision)
        names = frozenset(file.rfilename for file in info.siblings or [])
        small = {
            name: Path(hf_hub_download(named.model, name, revision=named.revision))
            for name in (CONFIG, *(name for name in QUANTIZE_CONFIGS if name in names))
        }
    except Exception as error:
        raise UserError(
            "the model's files are not on this machine, and the hub gave an error: "
            f"{one_line(str(error))[:200]}",
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
        what, where=one_line(str(file)), hint="the model may be damaged: download it again"
    )
