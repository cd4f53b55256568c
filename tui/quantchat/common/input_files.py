"""Reads files of users and models: regular files up to a maximum size, and text only as UTF-8.

Profiles, configs, headers of weights, prompts and calibration texts are all read through this
module, by the main process and by workers. Reading other kinds of files might never end: a FIFO
waits for its writer, and a device has no end. Only `read_any` accepts them.
"""

from __future__ import annotations

import codecs
import errno
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

ENCODING = "utf-8-sig"
"""Encoding of text: UTF-8; a byte order mark at its start is removed."""

MOST_JSON = 256 * 2**20
"""Largest JSON file of a model in bytes; the largest tokenizers and indexes have about 40 MB."""

_MARKS = {
    "UTF-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
    "UTF-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
}
"""Byte order marks of other encodings. UTF-32 comes first, because its little-endian mark begins
with that of UTF-16."""

_JSON_LINES = (".jsonl", ".ndjson", ".json")


class Unreadable(ValueError):
    """A text cannot be read; `line` is 1-based, 0 means the whole text."""

    def __init__(self, what: str, line: int = 0) -> None:
        super().__init__(what)
        self.line = line


def open_regular(path: Path) -> BinaryIO:
    """Open the file at `path` for reading. Raises OSError, also if it is not a regular file."""
    try:
        # Without O_NONBLOCK, opening a FIFO would block.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:  # a NUL in the name
        raise OSError(errno.EINVAL, str(error), str(path)) from error
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path, most: int) -> bytes:
    """Return the content of the regular file at `path`. Raises OSError, also above `most` bytes."""
    with open_regular(path) as file:
        return _up_to(file, most, path)


def read_any(path: Path, most: int) -> bytes:
    """Return the content of a file of any kind, also of a pipe as from a shell's `<(command)`.

    Raises OSError, also above `most` bytes.
    """
    try:
        with path.open("rb") as file:
            return _up_to(file, most, path)
    except ValueError as error:  # a NUL in the name
        raise OSError(errno.EINVAL, str(error), str(path)) from error


def _up_to(file: BinaryIO, most: int, path: Path) -> bytes:
    data = file.read(most + 1)
    if len(data) > most:
        size = f"{most // 2**20} MiB" if most >= 2**20 else f"{most // 2**10} KiB"
        raise OSError(errno.EFBIG, f"it is larger than {size}", str(path))
    return data


def decoded(data: bytes) -> str:
    """Decode `data` as UTF-8.

    Raises Unreadable, which names the real encoding if `data` begins with its byte order mark.
    """
    try:
        return data.decode(ENCODING)
    except UnicodeDecodeError as error:
        encodings = (name for name, marks in _MARKS.items() if data.startswith(marks))
        also = f", but {name}" if (name := next(encodings, "")) else ""
        line = data.count(b"\n", 0, error.start) + 1
        raise Unreadable(f"is not UTF-8{also}", line) from error


def is_json_lines(path: Path) -> bool:
    """Return whether the name says JSON Lines: `x.jsonl`, `x.ndjson`, also `x.jsonl.txt`."""
    return any(suffix.lower() in _JSON_LINES for suffix in path.suffixes[-2:])


def json_lines(text: str) -> Iterator[tuple[int, Any]]:
    """Yield each line of JSON with its number; skip blank lines. Raises Unreadable."""
    # Split at line feeds only: JSON may contain an unescaped U+2028.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise Unreadable("is not JSON", number) from error
        # Decoded UTF-8 has no lone surrogates, but a JSON escape such as \ud83d can be one.
        if "\\u" in line and has_lone_surrogate(json.dumps(value, ensure_ascii=False)):
            raise Unreadable(LONE_SURROGATE, number)
        yield number, value


LONE_SURROGATE = (
    "holds half a character (a lone surrogate, for example of a cut emoji), which no model can read"
)


def has_lone_surrogate(text: str) -> bool:
    """Return whether `text` has a lone surrogate, which no tokenizer can encode."""
    return not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)
