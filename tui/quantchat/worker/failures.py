"""Turn an exception into one line for the user: its kind, the reason, and what to do."""

from __future__ import annotations

import contextlib
import re
import traceback
from dataclasses import replace

from quantchat.common.cuda_driver import OTHER_BUILD_HINT
from quantchat.wire.messages import Failed, FailureKind
from quantchat.wire.redaction import redacted
from quantchat.worker.environment_failures import environment_failure

DEVICE_FAILED: FailureKind = "device_failed"
"""Kind of the failures after which this process can no longer use its GPU."""


class Refused(Exception):
    """A request that the worker cannot or will not carry out; `failure` is reported to the user."""

    def __init__(self, kind: FailureKind, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.failure = Failed(kind, reason, hint)


_CPU_ALLOCATOR = re.compile(r"can't allocate memory: you tried to allocate (\d+) bytes")
_CUDA_SIZES = re.compile(
    r"Tried to allocate ([\d.]+) (\w+)\..*?(?:of which|capacity of) .*?([\d.]+) (\w+) is free", re.S
)
_CUDA_FULL = re.compile(
    r"CUDA out of memory|(?:CUDA (?:driver )?error|Triton Error \[CUDA\]): out of memory"
    r"|CUBLAS_STATUS_ALLOC_FAILED"
)
"""Messages of torch's allocator, CUDA (contexts, graphs, modules) and cuBLAS when GPU memory is
full."""
_CUDA_BUSY = re.compile(r"CUDA-capable device(?:s|\(s\)) (?:are|is/are) busy or unavailable")
"""The text of `cudaErrorDevicesUnavailable` from `cudaGetErrorString`, in CUDA 11 and later."""
_CUDA_LOST = re.compile(
    r"(?:CUDA(?: driver)? error|Triton Error \[CUDA\]): ("
    r"uncorrectable (?:ECC error encountered|NVLink error detected during the execution)"
    r"|an illegal (?:memory access|instruction) was encountered|unspecified launch failure"
    r"|misaligned address|invalid program counter|hardware stack error|unknown error"
    r"|the launch timed out and was terminated|device-side assert triggered"
    r"|operation not supported on global/shared address space"
    r"|Invalid access of peer GPU memory over nvlink or a hardware error)"
)
"""The texts of `cudaGetErrorString` for errors after which each later call fails too ("the process
must be terminated and relaunched": CUDA's `driver_types.h`)."""
_NO_KERNEL_IMAGE = re.compile(
    r"no kernel image is available|device kernel image is invalid|CUBLAS_STATUS_ARCH_MISMATCH", re.I
)
"""`cudaErrorNoKernelImageForDevice` and similar: a library was not built for this GPU."""
_INSTALL = re.compile(r"pip install (?:-U |--upgrade )?(['\"]?[A-Za-z][\w.\-\[\],=<>]*['\"]?)")
"""The package that a library's exception says to install."""
_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SMALLER = (
    "try a shorter context, fewer bits or double quantization, or end other programs on the device"
)


def describe(error: BaseException, *, turn: int = -1, loading: str = "") -> Failed:
    """Return the failure to show for `error`.

    `turn` is the number of the turn in which the error occurred; -1: in no turn. `loading` is the
    name of the model if the error occurred while the model was being loaded; otherwise empty.
    """
    if isinstance(error, Refused):
        failure = error.failure
        reason, hint = redacted(failure.reason), redacted(failure.hint)
        return Failed(failure.kind, reason, hint, turn, failure.needed, failure.free)
    text = redacted(" ".join(str(error).split()))
    if (sizes := _out_of_memory(error)) is not None:
        needed, free = sizes
        needed_text = f": {needed / 2**20:,.0f} MiB more were needed" if needed >= 0 else ""
        free_text = f", {free / 2**20:,.0f} MiB were free" if free >= 0 else ""
        return Failed(
            "out_of_memory", f"out of memory{needed_text}{free_text}", _SMALLER, turn, needed, free
        )
    if _CUDA_BUSY.search(text):
        return Failed(
            "device_busy",
            "CUDA gives no access to the GPU: usually another process uses it in exclusive mode",
            "end that process (it may be the other variant), or let several processes use the GPU: "
            "nvidia-smi -c DEFAULT",
            turn,
        )
    if _NO_KERNEL_IMAGE.search(text):
        return Failed(
            "no_kernel_image", _shortened(f"not built for this GPU: {text}"), OTHER_BUILD_HINT, turn
        )
    if lost := _CUDA_LOST.search(text):
        return Failed(
            DEVICE_FAILED,
            f"the GPU no longer works for this process: {lost[1]}",
            "reload the variant; if the error returns, `nvidia-smi -q` and the Xid lines of "
            "`dmesg` show whether the GPU is at fault",
        )
    if (of_environment := environment_failure(error, loading)) is not None:
        reason, hint = _shortened(redacted(of_environment.reason)), redacted(of_environment.hint)
        return replace(of_environment, reason=reason, hint=hint, turn=turn)
    if isinstance(error, ModuleNotFoundError) and error.name:
        return Failed(
            "missing_library",
            f"the library {error.name} is not installed for this interpreter",
            f"install {error.name} for it, or set `python` in the profile to an interpreter that"
            " has the library",
            turn,
        )
    if isinstance(error, ImportError):  # transformers says which library a checkpoint needs
        return Failed(
            "missing_library",
            _shortened(f"cannot load {loading}: {text}" if loading else text),
            f"python -m pip install {named[1]}"
            if (named := _INSTALL.search(text))
            else "install the library that it names for this interpreter, or use another engine",
            turn,
        )
    if type(error).__name__ == "PanicException":  # from Rust code of the tokenizers library
        return Failed(
            "unsupported",
            _shortened(f"the tokenizer failed on this text: {text}"),
            "a pattern in tokenizer.json backtracks too much: name another tokenizer"
            " (`tokenizer` in the profile)",
            turn,
        )
    what = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if loading:
        return Failed(
            "bad_checkpoint",
            f"cannot load {loading}: {_shortened(what)}",
            "look at the worker's log; check that the model's files are complete",
            turn,
        )
    return Failed("internal", _shortened(what), "look at the worker's log, then retry", turn)


def log(error: BaseException) -> None:
    """Print `error` with its traceback to the worker's log, unless the disk is full."""
    with contextlib.suppress(OSError, ValueError):
        traceback.print_exception(error)


def first_line(error: BaseException) -> str:
    """Return the first line of the message of `error`, or the name of its class."""
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)


def on_one_line(text: str, most: int = 200) -> str:
    """Return `text` on one line of at most `most` characters."""
    return _shortened(" ".join(text.split()), most)


def _shortened(text: str, most: int = 300) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _out_of_memory(error: BaseException) -> tuple[int, int] | None:
    """Return (needed, free) in bytes, each -1 if not known; None if `error` is another error.

    torch has no exception class for the CPU's allocator, so the message is parsed.
    """
    text = str(error)
    if found := _CPU_ALLOCATOR.search(text):
        return int(found[1]), -1
    if type(error).__name__ == "OutOfMemoryError" or _CUDA_FULL.search(text):
        if sizes := _CUDA_SIZES.search(text):
            needed = int(float(sizes[1]) * _UNITS.get(sizes[2], 0)) or -1
            return needed, int(float(sizes[3]) * _UNITS.get(sizes[4], 0))
        return -1, -1
    if isinstance(error, MemoryError) or "Cannot allocate memory" in text:  # ENOMEM, e.g. of mmap
        return -1, -1
    return None
