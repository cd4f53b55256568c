"""What Triton needs besides a GPU: a C compiler, with which it compiles its kernel launchers."""

from __future__ import annotations

import os
import shutil
import sysconfig
from importlib.util import find_spec
from pathlib import Path


def triton_problem() -> str:
    """Return why Triton cannot launch kernels here; empty if no reason is known.

    Triton's own rules (`triton/runtime/build.py`): it uses the compiler named by the variable CC,
    else clang or gcc, and needs the headers of this Python.
    """
    if find_spec("triton") is None:
        return "Triton is not installed"
    return compiler_problem()


def compiler_problem() -> str:
    """Return what is missing of a C compiler and Python's headers; empty if both are installed."""
    named = os.environ.get("CC")
    if not any(map(shutil.which, [named] if named else ["gcc", "clang"])):
        return f"no C compiler ({named or 'gcc or clang'}) was found"
    scheme = sysconfig.get_default_scheme()
    # Debian's default scheme names a folder without headers.
    scheme = "posix_prefix" if scheme == "posix_local" else scheme
    if not (Path(sysconfig.get_path("include", scheme)) / "Python.h").is_file():
        return "the headers of Python (python3-dev) are not installed"
    return ""
