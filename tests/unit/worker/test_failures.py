"""Exceptions of the libraries, reported as one line."""

from __future__ import annotations

import errno
import os
import subprocess
from types import SimpleNamespace
from typing import Any

import pytest

from quantchat.wire.messages import Generate, Message, Sampling
from quantchat.worker import main
from quantchat.worker.failures import Refused, describe


def test_the_cpu_allocator_says_what_was_needed() -> None:
    error = RuntimeError(
        "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate "
        "memory: you tried to allocate 4194304 bytes. Error code 12 (Cannot allocate memory)"
    )
    failure = describe(error, turn=3)
    assert (failure.kind, failure.needed, failure.turn) == ("out_of_memory", 4194304, 3)
    assert "4 MiB more were needed" in failure.reason


def test_cuda_says_what_was_needed_and_free() -> None:
    # The words of torch 2.8 to 2.13, c10/cuda/CUDACachingAllocator.cpp.
    error = RuntimeError(
        "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of "
        "79.11 GiB of which 512.00 MiB is free. Process 7 has 78.60 GiB memory in use."
    )
    failure = describe(error)
    assert failure.kind == "out_of_memory"
    assert failure.needed == int(2.5 * 2**30)
    assert failure.free == 512 * 2**20


ADVICE = "\nCUDA kernel errors might be asynchronously reported at some other API call."


@pytest.mark.parametrize(
    "words",
    [
        "CUDA out of memory.",
        f"CUDA error: out of memory{ADVICE}",  # a context, or a graph, on a GPU that is full
        "CUDA driver error: out of memory",
        "Triton Error [CUDA]: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ],
)
@pytest.mark.parametrize("loading", ["", "/models/m"])
def test_cuda_without_sizes_is_still_out_of_memory(words: str, loading: str) -> None:
    failure = describe(RuntimeError(words), loading=loading)
    assert (failure.kind, failure.needed, failure.free) == ("out_of_memory", -1, -1)
    assert failure.reason == "out of memory"


@pytest.mark.parametrize("words", ["all CUDA-capable devices are", "CUDA-capable device(s) is/are"])
def test_a_gpu_that_another_process_has_to_itself(words: str) -> None:
    error = RuntimeError(f"CUDA error: {words} busy or unavailable{ADVICE}")
    failure = describe(error, turn=2, loading="/models/m")
    assert (failure.kind, failure.turn) == ("device_busy", 2)
    assert "exclusive mode" in failure.reason
    assert "nvidia-smi -c" in failure.hint


def test_another_error_of_cuda_is_told_as_it_is() -> None:
    failure = describe(RuntimeError(f"CUDA error: invalid configuration argument{ADVICE}"))
    assert failure.kind == "internal"
    assert "invalid configuration argument" in failure.reason


@pytest.mark.parametrize(
    "words",
    [
        f"CUDA error: no kernel image is available for execution on the device{ADVICE}",
        "Triton Error [CUDA]: device kernel image is invalid",
        "CUDA error: CUBLAS_STATUS_ARCH_MISMATCH when calling `cublasGemmEx(...)`",
        "Error no kernel image is available for execution on the device at line 90 in file ops.cu",
    ],
)
@pytest.mark.parametrize("loading", ["", "/models/m"])
def test_a_gpu_that_a_library_was_not_built_for_is_no_bad_checkpoint(
    words: str, loading: str
) -> None:
    failure = describe(RuntimeError(words), turn=2, loading=loading)
    assert (failure.kind, failure.turn) == ("no_kernel_image", 2)
    assert failure.reason.startswith("not built for this GPU: ")
    assert "cu126" in failure.hint


# The words of cudaGetErrorString, CUDA 13.0.
LOST = [
    "uncorrectable ECC error encountered",
    "an illegal memory access was encountered",
    "unspecified launch failure",
    "unknown error",
    "the launch timed out and was terminated",
    "device-side assert triggered",
]


@pytest.mark.parametrize("words", LOST)
@pytest.mark.parametrize("by", ["CUDA error", "Triton Error [CUDA]"])
def test_a_gpu_that_fails_ends_more_than_an_answer(words: str, by: str) -> None:
    failure = describe(RuntimeError(f"{by}: {words}{ADVICE}"), turn=3, loading="/models/m")
    assert (failure.kind, failure.turn) == ("device_failed", -1)
    assert failure.reason == f"the GPU no longer works for this process: {words}"
    assert "reload the variant" in failure.hint


def test_a_variant_whose_gpu_failed_is_not_asked_again() -> None:
    """Each later answer would fail too, and giving memory back ends the worker unexplained."""

    class Broken:
        def answer(self, *_: Any) -> None:
            raise RuntimeError(f"CUDA error: {LOST[0]}{ADVICE}")

        def forget(self) -> None:
            raise RuntimeError(f"CUDA error: {LOST[0]}{ADVICE}")

    commands = iter([Generate(4, [Message("user", "hello")], Sampling(), 8)])
    told: list[Any] = []
    inbox = SimpleNamespace(next=lambda: next(commands), stopped=lambda turn: False)
    server = main._Server(inbox, SimpleNamespace(send=told.append), 0.0)  # type: ignore[arg-type]
    server._decoder = Broken()  # type: ignore[assignment]
    with pytest.raises(StopIteration):
        server.run()
    assert [(one.kind, one.turn) for one in told] == [("device_failed", -1)]


def test_a_missing_library_is_named() -> None:
    failure = describe(ModuleNotFoundError("No module named 'bitsandbytes'", name="bitsandbytes"))
    assert failure.kind == "missing_library"
    assert "bitsandbytes" in failure.reason


def test_what_a_checkpoint_wants_is_passed_on() -> None:
    error = ImportError("Loading a GPTQ quantized model requires optimum (`pip install optimum`)")
    failure = describe(error, loading="m")
    assert failure.kind == "missing_library"
    assert failure.reason.startswith("cannot load m: Loading a GPTQ")
    assert failure.hint == "python -m pip install optimum"


def test_a_module_that_is_not_named_is_not_called_none() -> None:
    error = ModuleNotFoundError("The processor requires the Torchvision library")
    failure = describe(error, loading="m")
    assert failure.kind == "missing_library"
    assert "Torchvision" in failure.reason and "None" not in failure.reason


@pytest.mark.parametrize("error", [OSError("no\nfile"), ValueError(""), KeyError("x")])
def test_while_loading_the_model_is_named_on_one_line(error: Exception) -> None:
    failure = describe(error, loading="/models/m")
    assert failure.kind == "bad_checkpoint"
    assert "/models/m" in failure.reason
    assert "\n" not in failure.reason


def test_a_refusal_keeps_its_words() -> None:
    failure = describe(Refused("context_full", "the context is full", "new chat"), turn=5)
    assert (failure.kind, failure.hint, failure.turn) == ("context_full", "new chat", 5)


def test_a_long_message_is_cut() -> None:
    assert len(describe(RuntimeError("x" * 5000)).reason) <= 300


# ------------------------------------------------------------ faults of the environment


def with_errno(number: int, path: str | None = None, kind: type[OSError] = OSError) -> OSError:
    return kind(number, os.strerror(number), path)


def raised(outer: Exception, inner: Exception, *, handled: bool = False) -> BaseException:
    """`outer`, raised from `inner`; or with `handled` while that was being handled."""
    try:
        try:
            raise inner
        except type(inner) as caught:
            if handled:
                raise outer  # noqa: B904 - as libraries do
            raise outer from caught
    except Exception as error:  # noqa: BLE001
        return error


def of_module(module: str, name: str, text: str, base: type[Exception] = Exception) -> Exception:
    return type(name, (base,), {"__module__": module})(text)  # type: ignore[no-any-return]


OWN = "/models/m"
ENVIRONMENT_FAULTS: list[tuple[BaseException, str, str, str]] = [
    # error, kind, what its reason names, what its cure names
    (with_errno(errno.EACCES, "/hub/models--a/x"), "environment", "the hub's cache", "HF_HOME"),
    (with_errno(errno.EROFS, "/hub/models--a/x"), "environment", "/hub/models--a/x", "HF_HOME"),
    (with_errno(errno.EACCES, "/hf/modules"), "environment", "Hugging Face", "HF_HOME"),
    (with_errno(errno.EACCES, "/code/m.py"), "environment", "code", "HF_MODULES_CACHE"),
    (with_errno(errno.EROFS, "/compiled/a"), "environment", "compiled", "QUANTCHAT_CACHE"),
    (with_errno(errno.EACCES, "/tmp/some/x"), "environment", "the temporary folder", "TMPDIR"),
    (with_errno(errno.EACCES, f"{OWN}/config.json"), "environment", "config.json", "read"),
    (with_errno(errno.ENOSPC, "/hub/x"), "no_space", "the disk is full", "HF_HOME"),
    (with_errno(errno.EDQUOT), "no_space", "the disk is full", "space"),
    (with_errno(errno.EMFILE, f"{OWN}/x"), "environment", "too many open files", "ulimit -n"),
    (with_errno(errno.EIO, f"{OWN}/x"), "environment", "Input/output error", "dmesg"),
    (with_errno(errno.ENOENT, "g++", FileNotFoundError), "environment", "program g++", "g++"),
    (
        FileNotFoundError(2, "No usable temporary directory found in ['/tmp', '/var/tmp']"),
        "environment",
        "temporary folder",
        "TMPDIR",
    ),
    (KeyError("getpwuid(): uid not found: 12345"), "environment", "passwd", "HOME"),
    (RuntimeError("Could not determine home directory."), "environment", "home", "HOME"),
    (
        UnicodeDecodeError("ascii", b"\xc3", 0, 1, "ordinal not in range(128)"),
        "environment",
        "encoding",
        "LANG",
    ),
    (UnicodeEncodeError("latin-1", "€", 0, 1, "no"), "environment", "encoding", "PYTHONUTF8"),
    (subprocess.CalledProcessError(1, ["nvcc", "-V"]), "environment", "nvcc -V", "log"),
    (
        of_module("httpx", "ProxyError", "403 Forbidden"),
        "fetch_failed",
        "ProxyError",
        "HTTPS_PROXY",
    ),
    (ValueError("Unknown scheme for proxy URL URL('foo://x')"), "fetch_failed", "proxy", "_PROXY"),
    (
        of_module("httpx2", "ConnectError", "[SSL: CERTIFICATE_VERIFY_FAILED]"),
        "fetch_failed",
        "CERTIFICATE",
        "SSL_CERT_FILE",
    ),
    (of_module("requests.exceptions", "ReadTimeout", ""), "fetch_failed", "ReadTimeout", "network"),
    (ConnectionResetError(104, "Connection reset by peer"), "fetch_failed", "reset", "network"),
    (
        raised(OSError("Can't load the model"), with_errno(errno.EACCES, "/hub/x")),
        "environment",
        "/hub/x",
        "HF_HOME",
    ),
    (
        raised(OSError("Can't load it"), with_errno(errno.EROFS, "/hub/x"), handled=True),
        "environment",
        "/hub/x",
        "HF_HOME",
    ),
    (ModuleNotFoundError("No module named 'm'", name="m"), "missing_library", "library m", "m"),
    (ModuleNotFoundError("Could not import module 'X'"), "missing_library", "'X'", "interpreter"),
]


@pytest.mark.parametrize(
    ("error", "kind", "named", "cure"), ENVIRONMENT_FAULTS, ids=lambda one: repr(one)[:50]
)
def test_a_fault_of_the_environment_is_none_of_the_model(
    error: BaseException, kind: str, named: str, cure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = {
        "HF_HOME": "/hf",
        "HF_HUB_CACHE": "/hub",
        "HF_MODULES_CACHE": "/code",
        "TORCHINDUCTOR_CACHE_DIR": "/compiled",
    }
    for name, folder in folders.items():
        monkeypatch.setenv(name, folder)
    for name in ("TMPDIR", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    failure = describe(error, turn=4, loading=OWN)
    assert failure.kind == kind
    assert named in failure.reason
    assert cure in failure.hint
    assert "model's files are complete" not in failure.hint
    assert "\n" not in failure.reason + failure.hint


@pytest.mark.parametrize(
    "error",
    [
        with_errno(errno.ENOENT, f"{OWN}/config.json", FileNotFoundError),
        with_errno(errno.EISDIR, f"{OWN}/config.json"),
        OSError(f"no file named model.safetensors found in directory {OWN}"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        ValueError("Unrecognized model"),
        of_module("safetensors", "SafetensorError", "invalid header"),
        # A file that a library looks for and goes on without is no reason.
        raised(ValueError("no such type"), with_errno(errno.ENOENT, "/hub/x"), handled=True),
    ],
    ids=lambda one: repr(one)[:50],
)
def test_a_fault_of_the_models_files_is_the_models(error: BaseException) -> None:
    failure = describe(error, loading=OWN)
    assert failure.kind == "bad_checkpoint"
    assert "model's files are complete" in failure.hint


def test_a_server_that_answers_is_no_fault_of_the_network() -> None:
    error = of_module("httpx", "HTTPStatusError", "404 Not Found")
    assert describe(error, loading=OWN).kind == "bad_checkpoint"
