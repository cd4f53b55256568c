"""Read the header of a GGUF file: the model's metadata and the shapes of its tensors.

Format: docs/gguf.md of GGML. A magic number, a version and two counts; then keys with typed values;
then each tensor's name, dimensions (the fastest-varying first), type and offset. The reader of the
package `gguf` creates an object for each token of the vocabulary, which takes seconds; this reader
skips the vocabulary.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from quantchat.common.input_files import open_regular
from quantchat.errors import UserError
from quantchat.estimate.model_files import ModelFiles, TensorInfo
from quantchat.text import one_line

_MAGIC, _VERSIONS = b"GGUF", (2, 3)
_FORMATS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q",
    12: "<d",
}  # fmt: skip
"""`struct` format of a scalar, by GGUF's number of its type."""
_UINT32, _STRING, _ARRAY, _UINT64 = 4, 8, 9, 10

_LONGEST = 2**24
"""Maximum bytes of a string and elements of an array: more than any vocabulary or template has."""
_MOST_DIMENSIONS, _MOST_TENSORS = 4, 2**20

_KEYS = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "vocab_size": "vocab_size",
}
"""The key of `config.json` for each GGUF key after the architecture's name, as in transformers'
`GGUF_CONFIG_MAPPING`."""

_WITH_A_WINDOW = {"gemma2": "gemma2", "gemma3": "gemma3_text", "gpt-oss": "gpt_oss"}
"""Transformers' `model_type` of each GGUF architecture whose sliding window transformers reads."""


class _NotUnderstood(ValueError):
    """The file is no GGUF file, damaged, or of an unsupported version; the message says which."""


def read_gguf(file: Path) -> ModelFiles:
    """Return the config and tensor headers of the GGUF file `file`.

    Each tensor counts as float32, its dtype after dequantization. Raises UserError.
    """
    try:
        with open_regular(file) as stream:
            said, tensors = _header(stream)
    except OSError as error:
        raise UserError(
            f"cannot be read: {error.strerror or error}", where=one_line(str(file))
        ) from error
    except (_NotUnderstood, struct.error, UnicodeDecodeError) as error:
        what = str(error) if isinstance(error, _NotUnderstood) else "has a damaged header"
        raise UserError(
            what, where=one_line(str(file)), hint="the model may be damaged: fetch it anew"
        ) from error
    return ModelFiles(_config(said), tensors, names=frozenset([file.name]))


def _header(stream: BinaryIO) -> tuple[dict[str, object], dict[str, TensorInfo]]:
    if stream.read(4) != _MAGIC:
        raise _NotUnderstood("is no GGUF file")
    version = _number(stream, _UINT32)
    if version not in _VERSIONS:
        raise _NotUnderstood(f"is GGUF of a version that is not read: {version}")
    count, keys = _number(stream, _UINT64), _number(stream, _UINT64)
    if count > _MOST_TENSORS or keys > _LONGEST:
        raise _NotUnderstood("has a damaged header")
    said = {}
    for _ in range(keys):
        key = _string(stream)
        said[key] = _value(stream, _number(stream, _UINT32))
    return said, dict(_tensor(stream) for _ in range(count))


def _config(said: Mapping[str, Any]) -> dict[str, object]:
    """Return the keys of `config.json` that transformers derives from the metadata."""
    kind = str(said.get("general.architecture"))
    config = {to: said.get(f"{kind}.{key}") for key, to in _KEYS.items()}
    config["model_type"] = _WITH_A_WINDOW.get(kind, kind)
    if kind in _WITH_A_WINDOW:
        config["sliding_window"] = said.get(f"{kind}.attention.sliding_window")
    return {key: value for key, value in config.items() if value is not None}


def _tensor(stream: BinaryIO) -> tuple[str, TensorInfo]:
    name = _string(stream)
    dimensions = _number(stream, _UINT32)
    if dimensions > _MOST_DIMENSIONS:
        raise _NotUnderstood("has a damaged header")
    shape = [_number(stream, _UINT64) for _ in range(dimensions)]
    if any(size >= 2**48 for size in shape):
        raise _NotUnderstood("has a damaged header")
    _number(stream, _UINT32), _number(stream, _UINT64)  # its type and offset, both unused
    return name, TensorInfo("F32", tuple(reversed(shape)))


def _value(stream: BinaryIO, kind: int) -> Any:
    """Return a scalar or string; skip the elements of an array and return None."""
    if kind == _STRING:
        return _string(stream)
    if kind != _ARRAY:
        return _number(stream, kind)
    kind, count = _number(stream, _UINT32), _number(stream, _UINT64)
    if count > _LONGEST:
        raise _NotUnderstood("has a damaged header")
    if kind == _STRING:
        for _ in range(count):
            _skip(stream, _number(stream, _UINT64))
    else:
        _skip(stream, count * struct.calcsize(_format(kind)))
    return None


def _string(stream: BinaryIO) -> str:
    length = _number(stream, _UINT64)
    if length > _LONGEST:
        raise _NotUnderstood("has a damaged header")
    return stream.read(length).decode("utf-8")


def _skip(stream: BinaryIO, count: int) -> None:
    if len(stream.read(min(count, 8 * _LONGEST))) != count:
        raise _NotUnderstood("has a damaged header")


def _number(stream: BinaryIO, kind: int) -> Any:
    form = _format(kind)
    return struct.unpack(form, stream.read(struct.calcsize(form)))[0]


def _format(kind: int) -> str:
    if kind not in _FORMATS:
        raise _NotUnderstood(f"holds a value of a type that is not read: {kind}")
    return _FORMATS[kind]
