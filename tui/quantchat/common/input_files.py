"""Files from outside: opened only where they are regular, read up to a size, decoded one way.

Profiles, configs, headers of weights, prompts and calibration texts are all read through this
module, on both sides. A FIFO would wait for its writer, and a device has no end.
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
"""Of text: UTF-8, and a byte order mark before it is none of the text."""

MOST_JSON = 256 * 2**20
"""Bytes of a model's file of JSON: the largest tokenizers and indexes have some 40 MB."""

_MARKS = {
    "UTF-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
    "UTF-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
}
"""Byte order marks that tell another encoding; the longer ones first, which begin alike."""

_JSON_LINES = (".jsonl", ".ndjson", ".json")


class Unreadable(ValueError):
    """What is wrong with a text, on which `line` (1-based; 0: all of it)."""

    def __init__(self, what: str, line: int = 0) -> None:
        super().__init__(what)
        self.line = line


def open_regular(path: Path) -> BinaryIO:
    """Open the file at `path` for reading. Raises OSError, also where it is no regular file."""
    try:
        # Without O_NONBLOCK, opening a FIFO would wait.
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
    """Return what is in the regular file at `path`. Raises OSError, also for more than `most`."""
    with open_regular(path) as file:
        return _up_to(file, most, path)


def read_any(path: Path, most: int) -> bytes:
    """The same of any kind of file: a shell's `<(command)` is a pipe. Raises OSError."""
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
    """`data` as text. Raises Unreadable where it is not UTF-8."""
    try:
        return data.decode(ENCODING)
    except UnicodeDecodeError as error:
        told = (name for name, marks in _MARKS.items() if data.startswith(marks))
        also = f", but {name}" if (name := next(told, "")) else ""
        line = data.count(b"\n", 0, error.start) + 1
        raise Unreadable(f"is not UTF-8{also}", line) from error


def is_json_lines(path: Path) -> bool:
    """Whether a file is JSON Lines by its name: `x.jsonl`, `x.ndjson`, also `x.jsonl.txt`."""
    return any(suffix.lower() in _JSON_LINES for suffix in path.suffixes[-2:])


def json_lines(text: str) -> Iterator[tuple[int, Any]]:
    """Yield each line of JSON with its number; blank ones are passed over. Raises Unreadable."""
    # Only line feeds end a line: JSON may hold U+2028 as it is.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise Unreadable("is not JSON", number) from error
        # Only an escape can bring one: the text itself was UTF-8.
        if "\\u" in line and half_characters(json.dumps(value, ensure_ascii=False)):
            raise Unreadable(HALF, number)
        yield number, value


HALF = "holds half a character (a lone surrogate, as of a cut emoji), which no model can read"


def half_characters(text: str) -> bool:
    """Whether `text` holds a lone surrogate: it cannot be encoded, and no tokenizer takes it."""
    return not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)
