"""Exceptions of the libraries, told as one line."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from quantchat.worker import main
from quantchat.worker.failures import Refused, describe
from quantchat.worker.protocol import Generate, Message, Sampling


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
    assert "nvidia-smi -c" in failure.mend


def test_another_error_of_cuda_is_told_as_it_is() -> None:
    failure = describe(RuntimeError(f"CUDA error: invalid configuration argument{ADVICE}"))
    assert failure.kind == "internal"
    assert "invalid configuration argument" in failure.reason


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
    assert "anew" in failure.mend


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
    assert failure.mend == "python -m pip install optimum"


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
    assert (failure.kind, failure.mend, failure.turn) == ("context_full", "new chat", 5)


def test_a_long_message_is_cut() -> None:
    assert len(describe(RuntimeError("x" * 5000)).reason) <= 300
