"""Compiles a C file of this package with the system's C compiler and loads it.

A wheel that contained machine code would have to be built for each platform, and for processors
without AVX2 or AVX512. The compiler needs less than a second, and its result is kept in the cache.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from quantchat.worker.compiled_code import compiled_code
from quantchat.worker.failures import Refused

_FLAGS = ("-O3", "-ffast-math", "-fPIC", "-std=gnu11")
_LIMIT_S = 60


def compiled(source: Path) -> Path:
    """Return the library that `source` compiles to, for this processor.

    Its parallel loops run in the threads of torch, if torch uses GNU's OpenMP and the compiler can
    use it; otherwise in one thread. Raises Refused if there is no compiler or it fails, with its
    first complaint; OSError if the folder cannot be written or the result cannot be loaded.
    """
    if openmp := _openmp_of_torch():
        with contextlib.suppress(Refused, OSError):
            return _compiled(source, openmp)
    return _compiled(source, "")


def _compiled(source: Path, openmp: str) -> Path:
    library = _folder() / f"{source.stem}-{_key(source, openmp)}.so"
    if not library.is_file():
        _compile(source, library, openmp)
    return library


def _openmp_of_torch() -> str:
    """Return the path of the OpenMP library that torch has loaded; empty if it is not GNU's.

    A second OpenMP library would start threads of its own, which would compete with torch's.
    """
    try:
        maps = Path("/proc/self/maps").read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return next((line.split()[-1] for line in maps if "/libgomp" in line), "")


def _folder() -> Path:
    """Return the folder for compiled code, which a worker shares with torch's compiler.

    Outside a worker the folder is temporary, and removed when the process ends.
    """
    kept = compiled_code()
    return kept / "c" if kept else Path(_temporary().name)


@functools.cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="quantchat-")


def _key(source: Path, openmp: str) -> str:
    """Return a hash of all that decides the machine code.

    The cache may lie in a home directory that machines with other processors share: code compiled
    for one of them may contain instructions that another does not have.
    """
    texts = [file.read_text(encoding="utf-8") for file in (source, *source.parent.glob("*.h"))]
    parts = [*texts, *_FLAGS, _target(), _processor(), openmp]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _processor() -> str:
    """Return the processor's architecture and, where Linux tells them, its instruction sets."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    sets = [line for line in lines if line.startswith(("flags", "Features"))]
    return "\n".join([platform.machine(), platform.processor(), *sets[:1]])


def _target() -> str:
    """Return the option for "this processor": clang and gcc for ARM know only -mcpu."""
    return "-march=native" if platform.machine() in ("x86_64", "AMD64") else "-mcpu=native"


def _compile(source: Path, library: Path, openmp: str) -> None:
    named = os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")), "")
    if not (compiler := shlex.split(named)):
        raise Refused("unsupported", "no C compiler (cc, gcc or clang) was found", "install gcc")
    flags = [*_FLAGS, _target(), *(["-fopenmp"] if openmp else [])]
    linked = [*([openmp] if openmp else []), "-lm"]
    library.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        object_file, shared = Path(folder, "o.o"), Path(folder, "o.so")
        # Two commands: gcc before version 13 would add code to a shared library that it links with
        # -ffast-math, and this code makes the whole process compute without denormal numbers.
        for command in (
            [*compiler, *flags, "-c", str(source), "-o", str(object_file)],
            [*compiler, "-shared", str(object_file), "-o", str(shared), *linked],
        ):
            ended = subprocess.run(
                command, check=False, capture_output=True, text=True, timeout=_LIMIT_S
            )
            if ended.returncode:
                complaint = next(iter(ended.stderr.strip().splitlines()), "no message")
                reason = f"{named} failed with {ended.returncode}: {complaint}"
                raise Refused("unsupported", reason, "see that the C compiler works")
        ctypes.CDLL(str(shared))  # raises OSError if it cannot be loaded
        shared.replace(library)  # at once, since another worker may compile the same file
