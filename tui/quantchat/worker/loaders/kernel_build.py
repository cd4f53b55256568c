"""Compile the extensions of GPTQModel's kernels, and report progress and failures.

An extension is a library in C++ and CUDA that contains a kernel. GPTQModel compiles it on first use
without any message, which takes half a minute for ExLlamaV2 and minutes for Marlin.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from quantchat.common import cuda_toolkit
from quantchat.common.gptq_kernels import EXTENSIONS
from quantchat.common.triton_needs import triton_problem
from quantchat.wire.messages import Progress
from quantchat.worker.failures import on_one_line

POLL_S = 1.0
"""Seconds between two readings of a build's progress."""

Building = Callable[[Progress], None]
"""A callback for the progress of compiling a kernel."""

_ERROR = re.compile(r"(?:fatal )?error: [^\n|]+")
"""An error in the output of a compiler."""
_OBJECT = re.compile(r"^build (\S+\.o): ", re.M)
"""A line of build.ninja that names an object file."""


def built(name: str, dtype: Any, stage: Callable[[str], None], building: Building) -> str:
    """Compile or load the extension of the kernel `name`; return why that failed, else "".

    Calls `stage` with a label of the work, and `building` with the compiler's progress. A kernel
    without an extension needs no work. Triton kernels are compiled later, when they run; for them,
    return why Triton cannot work here. `dtype` is the `torch.dtype` of the activations.
    """
    import torch
    from gptqmodel import extension as extensions

    if name in ("triton", "gemm_triton"):
        return triton_problem()
    wanted = EXTENSIONS.get(name)
    if wanted is None:
        return ""
    if name == "marlin" and dtype == torch.float16:
        wanted = "marlin_fp16"
    extension = extensions._EXTENSION_SPECS_BY_NAME[wanted].resolve()
    if torch.version.cuda and not compiled_before(extension):
        if problem := cuda_toolkit.build_problem(torch.version.cuda):
            return f"{problem} to compile it with"
        cuda_toolkit.use(torch.version.cuda)
    if name == "marlin":
        _make_sources_writable()
    label = f"compiling the kernel {name}"
    stage(label if not compiled_before(extension) else f"loading the kernel {name}")
    with _progress_reported(
        extension.base_build_root(), lambda *progress: building(Progress(label, *progress))
    ):
        fine = extensions.is_available(wanted)
    return "" if fine else _reason(extensions.error(wanted))


def compiled_before(extension: Any) -> bool:
    """Return whether an extension was compiled on this machine, perhaps for another torch or GPU.

    The exact folder of the compiled extension is not computed, because GPTQModel would then
    generate or download the sources.
    """
    return any(extension.base_build_root().glob(f"*/{extension.name}*.so"))


def _reason(text: str) -> str:
    """Return the compiler's error message from the output of a failed build."""
    found = _ERROR.search(text)
    reason = found[0] if found else text or "the build printed no reason; see the worker's log"
    return on_one_line(re.sub(r"<class '[\w.]*?(\w+)'>", r"\1", reason))


def _make_sources_writable() -> None:
    """Give GPTQModel a writable copy of Marlin's sources if its own folder is read-only.

    GPTQModel writes generated sources of kernels next to the sources that it ships, in
    site-packages.
    """
    from gptqmodel.utils import marlin

    root = marlin._marlin_root()
    try:
        probe = root / ".quantchat-can-write"
        probe.touch()
        probe.unlink()
    except OSError:
        base = marlin._MARLIN_BF16_TORCH_OPS_EXTENSION.base_build_root()
        copy = base.with_name("marlin_sources")
        shutil.copytree(root, copy, dirs_exist_ok=True, copy_function=_copy_contents)
        for folder in (copy, *filter(Path.is_dir, copy.rglob("*"))):
            folder.chmod(0o700)  # copytree copies the read-only mode
        marlin._marlin_root = lambda: copy


def _copy_contents(source: str, target: str) -> None:
    """Copy the content of the file `source` to `target`, if it differs.

    Does not copy the read-only mode. If the content is equal, `target` keeps its modification time,
    so that ninja does not compile it again.
    """
    old, new = Path(target), Path(source).read_bytes()
    if not old.is_file() or old.read_bytes() != new:
        old.write_bytes(new)


# ------------------------------------------------------------ progress of a build


@contextlib.contextmanager
def _progress_reported(root: Path, tell: Callable[[int, int, str], None]) -> Iterator[None]:
    """Within this context, report the progress of the build under `root` every `POLL_S` seconds.

    Calls `tell` with the numbers of compiled and of all files and a detail, from a thread. A build
    that takes less than `POLL_S` reports nothing.
    """
    over = threading.Event()
    began = time.monotonic()

    def watch() -> None:
        while not over.wait(POLL_S):
            done, total = progress_of(root)
            seconds = f"{time.monotonic() - began:.0f} s"
            files = f"{done} of {total} files, " if total else ""
            tell(done, total, f"{files}{seconds}")

    thread = threading.Thread(target=watch, name="build progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def progress_of(root: Path) -> tuple[int, int]:
    """Return how many object files are compiled, and how many the build under `root` has.

    Return (0, 0) before the build begins. The object files are those that build.ninja lists, a file
    that torch writes at the start of a build.
    """
    builds = [one for one in root.glob("*/build.ninja") if not any(one.parent.glob("*.so"))]
    try:
        newest = max(builds, key=lambda one: one.stat().st_mtime)
        objects = _OBJECT.findall(newest.read_text(encoding="utf-8", errors="replace"))
    except (ValueError, OSError):  # no build yet, or the file is being replaced
        return 0, 0
    return sum((newest.parent / name).is_file() for name in objects), len(objects)
