"""Recognize faults of the environment, as opposed to faults of a model's files.

While a model is loaded, a read-only folder, a full disk, a proxy or an encoding can raise many
kinds of exceptions. The report of a fault names the path, and the environment variable with which
the user can choose another folder.
"""

from __future__ import annotations

import errno
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from quantchat.wire.messages import Failed, FailureKind

KIND: FailureKind = "environment"

_FOLDERS = {
    "HF_HUB_CACHE": ("the hub's cache", "set HF_HOME or HF_HUB_CACHE"),
    "HF_MODULES_CACHE": ("the folder for the code of models", "set HF_MODULES_CACHE"),
    "HF_HOME": ("the folder of the Hugging Face libraries", "set HF_HOME"),
    "TORCHINDUCTOR_CACHE_DIR": ("the folder for compiled code", "set QUANTCHAT_CACHE"),
    "TRITON_CACHE_DIR": ("the folder for compiled code", "set TRITON_CACHE_DIR"),
    "TORCH_EXTENSIONS_DIR": ("the folder for compiled kernels", "set TORCH_EXTENSIONS_DIR"),
    "TMPDIR": ("the temporary folder", "set TMPDIR"),
    "XDG_CACHE_HOME": ("the cache folder", "set XDG_CACHE_HOME"),
    "HOME": ("the home directory", "set HOME"),
}
"""Key: an environment variable that names a folder; value: the purpose of this folder, and how to
use another folder."""

_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_TOO_MANY = (errno.EMFILE, errno.ENFILE)
_BROKEN = (errno.EIO, errno.ESTALE, errno.ENXIO)
_GRAVE = (*_FORBIDDEN, *_FULL, *_TOO_MANY, *_BROKEN)
"""Values of `errno` that always mean a fault of the environment. ENOENT does not: see `_causes`."""

_NETWORK = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3", "ssl", "socket")
"""Packages whose exceptions are faults of the network."""
_ANSWERED = ("HTTPStatusError", "HTTPError", "HfHubHTTPError")
"""Exceptions that report an answer of the server, which means that the network worked."""


def environment_failure(error: BaseException, loading: str = "") -> Failed | None:
    """Return the fault of the environment behind `error`; None if it may be the model's files.

    `loading` is the folder or id of the model that is being loaded; the reason begins with it.
    """
    for one in _causes(error):
        if (found := _classify(one, loading)) is not None:
            kind, reason, hint = found
            return Failed(kind, f"cannot load {loading}: {reason}" if loading else reason, hint)
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield `error` and its causes.

    An exception that was being handled when the next one was raised (`__context__`) counts as a
    cause only if its errno is in `_GRAVE`. A library often tries a file, handles the error that the
    file is missing, and then fails for another reason: the missing file is not the cause.
    """
    seen: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in seen and len(seen) < 16:
        seen.append(one)
        following = one.__cause__ or one.__context__
        if following is not one.__cause__ and getattr(following, "errno", None) not in _GRAVE:
            following = None
        one = following
    yield from seen


def _classify(error: BaseException, loading: str) -> tuple[FailureKind, str, str] | None:
    """Return kind, reason and hint for one exception, or None."""
    text = " ".join(str(error).split())
    if "No usable temporary directory" in text:
        return KIND, "no temporary folder is writable", "set TMPDIR to a writable folder"
    if "uid not found" in text or "Could not determine home directory" in text:
        return (
            KIND,
            f"this user ({os.getuid()}) has no home directory and no passwd entry",
            "set HOME and USER",
        )
    if isinstance(error, UnicodeError) and _encoding_of_locale(error):
        return (
            KIND,
            f"text cannot be read or written in this locale's encoding: {text[:150]}",
            "set LANG to a UTF-8 locale, e.g. C.UTF-8, or PYTHONUTF8=1",
        )
    if isinstance(error, subprocess.SubprocessError):
        program = getattr(error, "cmd", "")
        name = program if isinstance(program, str) else " ".join(map(str, program))[:100]
        return KIND, f"a program failed: {name or text[:100]}", "look at the worker's log"
    if isinstance(error, OSError) and error.errno is not None and not _of_network(error):
        return _file_failure(error, loading)
    if _of_network(error) or (loading and re.search(r"\bproxy\b", text, re.IGNORECASE)):
        return _network_failure(error, text)  # an invalid proxy address raises ValueError
    return None


def _encoding_of_locale(error: UnicodeError) -> bool:
    """Return whether the locale chose the encoding; files of models are always read as UTF-8."""
    encoding = str(getattr(error, "encoding", "")).lower()
    return bool(encoding) and not encoding.startswith("utf")


def _of_network(error: BaseException) -> bool:
    kind = type(error)
    if kind.__name__ in _ANSWERED:
        return False
    of_library = kind.__module__.partition(".")[0].lstrip("_") in _NETWORK
    return of_library or isinstance(error, ConnectionError | TimeoutError)


def _network_failure(error: BaseException, text: str) -> tuple[FailureKind, str, str]:
    message = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if "proxy" in message.lower():
        hint = f"check {_set_variables('HTTPS_PROXY', 'HTTP_PROXY', 'ALL_PROXY')}"
    elif "ssl" in message.lower() or "certificate" in message.lower():
        hint = "set SSL_CERT_FILE to the certificates of your network"
    else:
        hint = "check the network and HF_ENDPOINT, or name a folder that holds the model"
    return "fetch_failed", f"the network failed: {message[:200]}", hint


def _set_variables(*names: str) -> str:
    """Return which of the variables `names` are set, in upper or lower case; all if none is set."""
    there = [name for name in names if os.environ.get(name) or os.environ.get(name.lower())]
    return ", ".join(there or names)


def _file_failure(error: OSError, loading: str) -> tuple[FailureKind, str, str] | None:
    named = error.filename if error.filename is not None else error.filename2
    path = os.fsdecode(named) if isinstance(named, str | bytes | os.PathLike) else ""
    why = f"{path}: {error.strerror}" if path else str(error.strerror)
    label, hint = variable_for(path)
    if error.errno in _FULL:
        hint = (
            f"free some space, or {hint} to a folder on another disk"
            if hint
            else "free some space there"
        )
        return "no_space", f"the disk is full: {why}", hint
    if error.errno in _TOO_MANY:
        return KIND, f"too many open files: {why}", "raise the limit: ulimit -n 4096"
    if error.errno in _BROKEN:
        return KIND, f"the disk or its network failed: {why}", "look at `dmesg`, then retry"
    own = loading.startswith("/") and _below(path, loading)
    if error.errno in _FORBIDDEN:
        if own or not hint:
            return KIND, why, "give this user read access, or name a copy that this user can read"
        return KIND, f"{label} cannot be used: {why}", f"{hint} to a writable folder"
    if error.errno == errno.ENOENT and path and "/" not in path:
        return KIND, f"the program {path} is not installed", f"install {path}"
    return None  # it may be a fault of the model's files


def variable_for(path: str, environ: Mapping[str, str] = os.environ) -> tuple[str, str]:
    """Return the purpose of the known folder that contains `path`, and how to use another folder.

    Both are empty if no variable names such a folder. If several do, the innermost folder counts.
    """
    named = {"TMPDIR": "/tmp", **environ}  # noqa: S108 - where TMPDIR is not set
    candidates = [(name, folder) for name in _FOLDERS if (folder := named.get(name))]
    inner = [(len(folder), name) for name, folder in candidates if _below(path, folder)]
    return _FOLDERS[max(inner)[1]] if inner else ("", "")


def _below(path: str, folder: str) -> bool:
    return bool(path) and Path(folder) in (Path(path), *Path(path).parents)
