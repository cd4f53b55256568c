"""llama.cpp's C library: its log, its devices and how it was built."""

from __future__ import annotations

import ctypes
import re
import sys
from collections import Counter, deque
from dataclasses import dataclass

import llama_cpp as c
from llama_cpp._ggml import libggml

_MOST_LINES = 400
"""Number of lines of the log that are kept: the latest lines."""
_BUFFER = re.compile(r"(\S+)\s+(model|KV|RS|compute|output) buffer size\s*=\s*([\d.]+) MiB")

_CPU, _GPU = 0, 1
"""Types of devices (`ggml_backend_dev_type`, ggml-backend.h)."""

_lines: deque[tuple[int, str]] = deque(maxlen=_MOST_LINES)
"""Lines of the log with their levels."""
_unfinished = ""
"""The last line of the log, until its end arrives."""
_level = 0
"""Level of the line in `_unfinished`."""
_DEBUG, _ERROR, _CONTINUED = 1, 4, 5
"""Levels of the log (`ggml_log_level`, ggml.h)."""


def _write(level: int, text: bytes, _data: ctypes.c_void_p) -> None:
    """Write a piece of the log, which may be part of a line; skip lines of the level debug.

    llama.cpp writes a debug line for each layer of each graph.
    """
    global _unfinished, _level
    _level = _level if level == _CONTINUED else level
    if _level == _DEBUG:
        return
    piece = text.decode(errors="replace")
    sys.stderr.write(piece)
    sys.stderr.flush()
    *whole, _unfinished = (_unfinished + piece).split("\n")
    _lines.extend((_level, line) for line in whole)


_log = c.llama_log_callback(_write)
"""The callback. The library does not keep it alive, so this reference must."""


def start() -> None:
    """Initialize the library, and write its log to stderr, which is the worker's log."""
    c.llama_log_set(_log, ctypes.c_void_p(0))
    c.llama_backend_init()


class LogCapture:
    """The lines that the library logs from now on. Creating a new object clears older ones."""

    def __init__(self) -> None:
        _lines.clear()

    @property
    def lines(self) -> list[str]:
        """The lines so far."""
        return [line for _, line in _lines]

    @property
    def fault(self) -> str:
        """The first error message, without the name of the C function; empty if there is none."""
        found = [line for level, line in _lines if level == _ERROR and line.strip()]
        return found[0].partition(": ")[2].strip() or found[0].strip() if found else ""

    def buffers(self, *kinds: str) -> Counter[str]:
        """Return the bytes of the buffers of these kinds, by the name of their backend.

        Kinds: `model`, `KV`, `RS` (recurrent states), `compute`, `output`. The library prints MiB
        with two decimals, so a size is exact to 5 KiB.
        """
        found: Counter[str] = Counter()
        for line in self.lines:
            if (size := _BUFFER.search(line)) and size[2] in kinds:
                found[size[1]] += round(float(size[3]) * 2**20)
        return found


@dataclass(frozen=True)
class Device:
    """A GPU (or another accelerator) that this build of the library can use."""

    pointer: int
    name: str
    """The library's name for the device, e.g. `CUDA0`."""
    description: str
    free: int
    """Free memory in bytes."""

    @property
    def place(self) -> str:
        """The name as torch would write it, e.g. `cuda:0`."""
        found = re.fullmatch(r"([A-Za-z]+)(\d+)", self.name)
        return f"{found[1].lower()}:{found[2]}" if found else self.name.lower()


def gpus() -> list[Device]:
    """Return the GPUs that the library can use; none for a build without such a backend."""
    for function, result, arguments in (
        ("ggml_backend_dev_count", ctypes.c_size_t, []),
        ("ggml_backend_dev_get", ctypes.c_void_p, [ctypes.c_size_t]),
        ("ggml_backend_dev_type", ctypes.c_int, [ctypes.c_void_p]),
        ("ggml_backend_dev_name", ctypes.c_char_p, [ctypes.c_void_p]),
        ("ggml_backend_dev_description", ctypes.c_char_p, [ctypes.c_void_p]),
        (
            "ggml_backend_dev_memory",
            None,
            [ctypes.c_void_p, *2 * [ctypes.POINTER(ctypes.c_size_t)]],
        ),
    ):
        getattr(libggml, function).restype = result
        getattr(libggml, function).argtypes = arguments
    found = []
    for index in range(libggml.ggml_backend_dev_count()):
        pointer = libggml.ggml_backend_dev_get(index)
        if libggml.ggml_backend_dev_type(pointer) != _GPU:
            continue
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        libggml.ggml_backend_dev_memory(pointer, ctypes.byref(free), ctypes.byref(total))
        name = libggml.ggml_backend_dev_name(pointer).decode()
        description = libggml.ggml_backend_dev_description(pointer).decode()
        found.append(Device(pointer, name, description, free.value))
    return found


def build() -> str:
    """Return what the library was built for, e.g. `CUDA, CPU AVX2 FMA F16C REPACK`."""
    info = c.llama_print_system_info().decode()
    parts = []
    for name, features in re.findall(r"(\w+) : ((?:[\w ]+ = [\w,]+ \| )+)", info + " "):
        on = re.findall(r"(\w+) = 1\b", features)
        shown = [one for one in on if one.startswith(_SPEED_FEATURES)]
        parts.append(" ".join([name, *(shown if name == "CPU" else [])]))
    return ", ".join(parts)


_SPEED_FEATURES = (
    "AVX",
    "AMX",
    "FMA",
    "F16C",
    "NEON",
    "SVE",
    "DOTPROD",
    "MATMUL",
    "REPACK",
    "LLAMAFILE",
)
"""Features of a CPU build that decide its speed."""
