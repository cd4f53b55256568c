"""Read the header of a GGUF file: its metadata, and the types and shapes of its tensors.

Format: docs/gguf.md of GGML. A magic number, a version and two counts; then keys with typed values;
then each tensor's name, dimensions (the fastest-varying first), type and offset. The reader of the
package `gguf` creates an object for each token of the vocabulary, which takes seconds; this reader
skips arrays such as the vocabulary.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from quantchat.common.input_files import open_regular

SUFFIX = ".gguf"
ANY = "*.gguf"
"""Given as the name of a GGUF file, this means the only GGUF file of the folder (`choose_file`)."""
SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
"""Matches the end of a file name such as `model-00001-of-00003.gguf`, which llama.cpp gives to a
part of a split model."""


class BlockType(NamedTuple):
    """A tensor type of GGML, which stores the weights in blocks of a fixed number."""

    name: str
    weights: int
    """Weights in a block."""
    bytes: int
    """Bytes of a block."""
    scales: int = 0
    """How many of these bytes are scales and minima, not weights."""


TYPES = {
    0: BlockType("F32", 1, 4),
    1: BlockType("F16", 1, 2),
    2: BlockType("Q4_0", 32, 18, 2),
    3: BlockType("Q4_1", 32, 20, 4),
    6: BlockType("Q5_0", 32, 22, 2),
    7: BlockType("Q5_1", 32, 24, 4),
    8: BlockType("Q8_0", 32, 34, 2),
    9: BlockType("Q8_1", 32, 36, 4),
    10: BlockType("Q2_K", 256, 84, 20),
    11: BlockType("Q3_K", 256, 110, 14),
    12: BlockType("Q4_K", 256, 144, 16),
    13: BlockType("Q5_K", 256, 176, 16),
    14: BlockType("Q6_K", 256, 210, 18),
    15: BlockType("Q8_K", 256, 292, 36),
    16: BlockType("IQ2_XXS", 256, 66, 2),
    17: BlockType("IQ2_XS", 256, 74, 10),
    18: BlockType("IQ3_XXS", 256, 98, 2),
    19: BlockType("IQ1_S", 256, 50, 2),
    20: BlockType("IQ4_NL", 32, 18, 2),
    21: BlockType("IQ3_S", 256, 110, 6),
    22: BlockType("IQ2_S", 256, 82, 10),
    23: BlockType("IQ4_XS", 256, 136, 8),
    24: BlockType("I8", 1, 1),
    25: BlockType("I16", 1, 2),
    26: BlockType("I32", 1, 4),
    27: BlockType("I64", 1, 8),
    28: BlockType("F64", 1, 8),
    29: BlockType("IQ1_M", 256, 56),
    30: BlockType("BF16", 1, 2),
    34: BlockType("TQ1_0", 256, 54, 2),
    35: BlockType("TQ2_0", 256, 66, 2),
    39: BlockType("MXFP4", 32, 17, 1),
    40: BlockType("NVFP4", 64, 36, 4),
    41: BlockType("Q1_0", 128, 18, 2),
    42: BlockType("Q2_0", 64, 18, 2),
}
"""Key: GGML's number of a tensor type (`ggml_type`, ggml.h); value: the type, whose blocks are
defined in ggml-common.h."""

BY_NAME = {kind.name: kind for kind in TYPES.values()}

_MAGIC, _VERSIONS = b"GGUF", (2, 3)
_FORMATS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q",
    12: "<d",
}  # fmt: skip
"""Key: GGUF's number of a scalar's type; value: its `struct` format."""
_UINT32, _STRING, _ARRAY, _UINT64 = 4, 8, 9, 10

_LONGEST = 2**24
"""Maximum bytes of a string and elements of an array: more than any vocabulary or template has."""
_MOST_DIMENSIONS, _MOST_TENSORS = 4, 2**20


class BadGguf(ValueError):
    """A GGUF file is missing, damaged, or of an unsupported version; the message says which.

    `hint` is what to do about it.
    """

    def __init__(
        self, what: str, hint: str = "the model may be damaged: download or copy it again"
    ) -> None:
        super().__init__(what)
        self.hint = hint


@dataclass(frozen=True)
class GgufTensor:
    """A tensor in a GGUF file."""

    kind: BlockType
    shape: tuple[int, ...]
    """As in torch: the fastest-varying dimension last."""

    @property
    def elements(self) -> int:
        """Count of weights."""
        return math.prod(self.shape)

    @property
    def blocks(self) -> int:
        """Count of blocks."""
        return -(-self.elements // self.kind.weights)

    @property
    def bytes(self) -> int:
        """Size in bytes, without the padding between tensors."""
        return self.blocks * self.kind.bytes


@dataclass(frozen=True)
class GgufHeader:
    """The header of a model's GGUF file, or of all parts of a split model."""

    metadata: dict[str, Any]
    """Scalars and strings by key; None for an array."""
    tensors: dict[str, GgufTensor]


def read_header(file: Path) -> GgufHeader:
    """Return the header of `file`, with the tensors of all parts if it is a part of a model.

    Raises OSError, and BadGguf.
    """
    first, *others = parts(file)
    header = _read(first)
    for other in others:
        header.tensors.update(_read(other).tensors)
    return header


def parts(file: Path) -> list[Path]:
    """Return the files of the split model that `file` is a part of, else `file` alone."""
    found = SHARD.search(file.name)
    if found is None:
        return [file]
    count = int(found[2])
    stem = file.name[: found.start()]
    return [file.with_name(f"{stem}-{n:05}-of-{count:05}.gguf") for n in range(1, count + 1)]


def choose_file(names: Iterable[str], wanted: str) -> str:
    """Return the only GGUF file of `names` that matches `wanted`. Raises BadGguf.

    `wanted` is a file's name, a quantization's name such as `Q4_K_M`, or `ANY`. A split model
    counts as one file, of which the first part is returned. Files that contain only a vision tower
    (`mmproj`) do not count.
    """
    names = list(names)
    if wanted in names:
        return wanted
    found = _matching(names, wanted)
    if len(found) == 1:
        return found[0]
    every = _matching(names, ANY)
    hint = "name one of its files: " + ", ".join(f'"{name}"' for name in every)
    if not every:
        raise BadGguf("has no GGUF file", "name a folder or repository with a .gguf file")
    if not found:
        raise BadGguf(f"has no GGUF file {wanted}", f"{hint} (gguf_file)")
    which = "" if wanted == ANY else f" with {wanted}"
    raise BadGguf(f"has {len(found)} GGUF files{which}", f"{hint} (gguf_file)")


def _matching(names: list[str], wanted: str) -> list[str]:
    first = [
        name
        for name in sorted(names)
        if name.endswith(SUFFIX)
        and "mmproj" not in name.lower()
        and ((part := SHARD.search(name)) is None or int(part[1]) == 1)
    ]
    if wanted == ANY:
        return first
    word = re.compile(rf"(?:^|[-._/]){re.escape(wanted)}(?=[-._]|$)", re.IGNORECASE)
    return [name for name in first if word.search(name)]


def _read(file: Path) -> GgufHeader:
    try:
        with open_regular(file) as stream:
            return _header(stream)
    except (struct.error, UnicodeDecodeError) as error:
        raise BadGguf("has a damaged header") from error


def _header(stream: BinaryIO) -> GgufHeader:
    if stream.read(4) != _MAGIC:
        raise BadGguf("is no GGUF file")
    version = _number(stream, _UINT32)
    if version not in _VERSIONS:
        raise BadGguf(f"has GGUF version {version}; quantchat reads versions 2 and 3")
    count, keys = _number(stream, _UINT64), _number(stream, _UINT64)
    if count > _MOST_TENSORS or keys > _LONGEST:
        raise BadGguf("has a damaged header")
    metadata = {}
    for _ in range(keys):
        key = _string(stream)
        metadata[key] = _value(stream, _number(stream, _UINT32))
    return GgufHeader(metadata, dict(_tensor(stream) for _ in range(count)))


def _tensor(stream: BinaryIO) -> tuple[str, GgufTensor]:
    name = _string(stream)
    dimensions = _number(stream, _UINT32)
    if dimensions > _MOST_DIMENSIONS:
        raise BadGguf("has a damaged header")
    shape = [_number(stream, _UINT64) for _ in range(dimensions)]
    if any(size >= 2**48 for size in shape):
        raise BadGguf("has a damaged header")
    kind = _number(stream, _UINT32)
    _number(stream, _UINT64)  # the offset, which is not needed
    if kind not in TYPES:
        raise BadGguf(f"has a tensor of an unknown type: {name} (type {kind})")
    return name, GgufTensor(TYPES[kind], tuple(reversed(shape)))


def _value(stream: BinaryIO, kind: int) -> Any:
    """Return a scalar or string; skip the elements of an array and return None."""
    if kind == _STRING:
        return _string(stream)
    if kind != _ARRAY:
        return _number(stream, kind)
    kind, count = _number(stream, _UINT32), _number(stream, _UINT64)
    if count > _LONGEST:
        raise BadGguf("has a damaged header")
    if kind == _STRING:
        for _ in range(count):
            _skip(stream, _number(stream, _UINT64))
    else:
        _skip(stream, count * struct.calcsize(_format(kind)))
    return None


def _string(stream: BinaryIO) -> str:
    length = _number(stream, _UINT64)
    if length > _LONGEST:
        raise BadGguf("has a damaged header")
    return stream.read(length).decode("utf-8")


def _skip(stream: BinaryIO, count: int) -> None:
    if len(stream.read(min(count, 8 * _LONGEST))) != count:
        raise BadGguf("has a damaged header")


def _number(stream: BinaryIO, kind: int) -> Any:
    form = _format(kind)
    return struct.unpack(form, stream.read(struct.calcsize(form)))[0]


def _format(kind: int) -> str:
    if kind not in _FORMATS:
        raise BadGguf(f"has a value of an unknown type: {kind}")
    return _FORMATS[kind]
