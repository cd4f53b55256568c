"""What Triton wants of a machine beside a GPU: it builds with C what launches its kernels."""

from __future__ import annotations

import os
import shutil
import sysconfig
from importlib.util import find_spec
from pathlib import Path


def lacking() -> str:
    """Why no kernel of Triton can be launched here; empty where nothing is known against it.

    Triton's own rules (`triton/runtime/build.py`): the compiler that CC names, clang or gcc, with
    the headers of this Python.
    """
    if find_spec("triton") is None:
        return "Triton is not installed"
    return lacking_to_build()


def lacking_to_build() -> str:
    """What of a C compiler and Python's headers is not here; empty where both are."""
    named = os.environ.get("CC")
    if not any(map(shutil.which, [named] if named else ["gcc", "clang"])):
        return f"no C compiler ({named or 'gcc or clang'}) was found"
    scheme = sysconfig.get_default_scheme()
    # Debian's own scheme names a folder where there are no headers.
    scheme = "posix_prefix" if scheme == "posix_local" else scheme
    if not (Path(sysconfig.get_path("include", scheme)) / "Python.h").is_file():
        return "the headers of Python (python3-dev) are not installed"
    return ""
