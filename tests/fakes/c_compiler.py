"""Whether there is a C compiler here, with which the fastest decode steps of a CPU are compiled."""

from __future__ import annotations

import os
import shlex
import shutil

HAS_C_COMPILER = any(
    map(shutil.which, shlex.split(os.environ.get("CC", ""))[:1] or ("cc", "gcc", "clang"))
)
