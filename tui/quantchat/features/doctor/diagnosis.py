"""Find the problems in the result of an inspection, each with its fix."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from quantchat.common import cuda_driver, cuda_toolkit
from quantchat.common.cuda_driver import OTHER_BUILD_HINT
from quantchat.features.doctor.inspection import Diagnosis
from quantchat.features.doctor.system_info import Folder, Terminal
from quantchat.system.nvml import NO_DRIVER
from quantchat.wire.jobs import COMPILES, MUST_COMPILE, READY, UNUSABLE, Kernel

LEAST_COLUMNS = 72
"""Terminal width, in columns, below which the screen shows one variant at a time, with tabs."""

LITTLE_DISK = 5 * 2**30
"""Free bytes below which a disk counts as full: a 4-bit checkpoint of a 7B model takes 4 GB."""


_VARIABLES = {
    "checkpoints": "QUANTCHAT_CACHE",
    "snapshots": "QUANTCHAT_SNAPSHOTS",
    "logs": "QUANTCHAT_LOGS",
    "profiles": "QUANTCHAT_CONFIG",
    "Hugging Face hub": "HF_HOME",
}
"""Name of a folder → the environment variable that sets its path."""

_LARGE = ("checkpoints", "Hugging Face hub")
"""Folders that may grow by gigabytes: free space below `LITTLE_DISK` is a problem for them."""


@dataclass(frozen=True)
class Problem:
    """Something that does not work, or does not work well."""

    what: str
    cure: str
    grave: bool = False
    """Whether the problem prevents quantchat's main job: to run two variants side by side."""


def problems(diagnosis: Diagnosis) -> list[Problem]:
    """Return the problems with their fixes, the most serious first."""
    found_problems = [
        *_of_libraries(diagnosis),
        *_of_kernels(diagnosis),
        *_of_gpus(diagnosis),
        *_of_folders(diagnosis.folders),
        *_of_terminal(diagnosis.terminal),
    ]
    return sorted(found_problems, key=lambda problem: not problem.grave)


def usable(diagnosis: Diagnosis) -> bool:
    """Return whether quantchat can do its main job here: no problem is grave."""
    return not any(problem.grave for problem in problems(diagnosis))


def _of_libraries(diagnosis: Diagnosis) -> Iterator[Problem]:
    if not (3, 10) <= sys.version_info[:2] <= (3, 13):
        yield Problem(
            f"quantchat is not tested with {diagnosis.interpreter.version}",
            "install it under Python 3.10 to 3.13",
        )
    missing = [name for name, version in diagnosis.libraries.items() if not version]
    if missing:
        yield Problem(
            f"not installed: {', '.join(missing)}",
            "reinstall quantchat in this environment: python -m pip install quantchat",
        )
    for name, reason in (diagnosis.worker.libraries if diagnosis.worker else {}).items():
        yield Problem(
            f"{name} cannot be imported: {reason}",
            f"reinstall {name}: python -m pip install --force-reinstall --no-deps {name}",
            grave=True,
        )


def _of_kernels(diagnosis: Diagnosis) -> Iterator[Problem]:
    if diagnosis.worker is None:
        yield Problem(
            f"the libraries could not be tested in a worker process: {diagnosis.failure}",
            "check that this interpreter can import torch",
            grave=True,
        )
        return
    kernels = diagnosis.worker.kernels
    for library in dict.fromkeys(kernel.library for kernel in kernels):
        own = [kernel for kernel in kernels if kernel.library == library]
        if all(kernel.state == UNUSABLE for kernel in own):
            cure = f"run `python -m pip check`; if it names {library} or torch, reinstall quantchat"
            if "no kernel image" in own[0].detail:
                cure = OTHER_BUILD_HINT
            yield Problem(
                f"no kernel of {library} runs on this machine: {own[0].name}: {own[0].detail}",
                cure,
                grave=True,
            )
    yield from _of_compiling(kernels, diagnosis.worker.torch.cuda)


def _of_compiling(kernels: list[Kernel], cuda: str) -> Iterator[Problem]:
    chosen = next((kernel for kernel in kernels if kernel.auto), None)
    own = [k for k in kernels if chosen is None or k.library == chosen.library]
    ready = [kernel.name for kernel in own if kernel.state == READY]
    if chosen is not None and chosen.state == COMPILES:
        instead = (
            f', or choose a kernel that needs no compiling in the profile: kernel = "{ready[0]}"'
            if ready
            else ""
        )
        yield Problem(
            f"the first model with {chosen.library} waits until {chosen.name} is compiled"
            f" ({chosen.detail})",
            f"wait once (the compiled kernel is then cached){instead}",
        )
    barred = [kernel for kernel in own if kernel.detail.startswith(MUST_COMPILE)]
    if barred:
        names = ", ".join(kernel.name for kernel in barred)
        yield Problem(
            f"faster kernels of {barred[0].library} ({names}) cannot be compiled:"
            f" {barred[0].detail}",
            f"{cuda_toolkit.how_to_install(cuda)} (NVIDIA's compiler for CUDA {cuda}),"
            " and a C++ compiler; "
            f"until then {barred[0].library} runs on a slow kernel: do not quote its speed",
        )


def _of_gpus(diagnosis: Diagnosis) -> Iterator[Problem]:
    torch = diagnosis.worker.torch if diagnosis.worker else None
    if torch and diagnosis.device.gpus and not torch.available:
        if cuda_driver.too_old(diagnosis.device.cuda, torch.cuda):
            yield Problem(
                cuda_driver.problem(diagnosis.device.cuda or "", torch.cuda)
                + ": no GPU can be used",
                cuda_driver.hint(torch.cuda),
                grave=True,
            )
        elif torch.cuda and os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
            yield Problem(
                "CUDA_VISIBLE_DEVICES hides every GPU",
                "unset it, unless you want to use the CPU",
            )
        elif torch.cuda:
            yield Problem(
                f"torch was built for CUDA {torch.cuda} and finds no GPU; "
                f"the driver supports CUDA {diagnosis.device.cuda or '–'}"
                f"{': ' + torch.error if torch.error else ''}",
                "check the output of `nvidia-smi` and the value of CUDA_VISIBLE_DEVICES",
                grave=True,
            )
        else:
            yield Problem(
                f"this machine has a GPU, but torch {torch.version} is built without CUDA",
                "install torch with CUDA: python -m pip install --force-reinstall torch",
            )
    if diagnosis.device.no_gpu and diagnosis.device.no_gpu != NO_DRIVER:
        yield Problem(
            f"no GPU can be used: {diagnosis.device.no_gpu}",
            "run `nvidia-smi`; the driver and its kernel module must have the same version",
        )


def _of_folders(folders: list[Folder]) -> Iterator[Problem]:
    for folder in folders:
        variable = _VARIABLES[folder.name]
        if not folder.writable:
            yield Problem(
                f"the folder for {folder.name} cannot be written: {folder.path}",
                f"set {variable} to a writable folder",
                grave=folder.name in ("checkpoints", "logs"),
            )
        elif folder.name in _LARGE and folder.free is not None and folder.free < LITTLE_DISK:
            yield Problem(
                f"{folder.free / 2**30:.1f} GiB are free for {folder.name}: {folder.path}",
                f"free disk space, or set {variable} to a folder on another disk",
            )


def _of_terminal(terminal: Terminal) -> Iterator[Problem]:
    if not terminal.interactive:
        return  # a pipe: the screen is not used
    if terminal.term in ("", "dumb", "unknown"):
        yield Problem(
            f'TERM is "{terminal.term}": the screen cannot be drawn',
            "set TERM to your terminal's type, such as xterm-256color; or use `quantchat run`, "
            "which needs no screen",
        )
    elif terminal.colours == "few":
        yield Problem(
            f"few colours: TERM is {terminal.term} and COLORTERM is not set",
            "export COLORTERM=truecolor if the terminal has true colour"
            " (ssh does not pass this variable on)",
        )
    if not terminal.unicode:
        yield Problem(
            "the encoding of the output is not UTF-8: symbols and bars will be wrong",
            "set LANG to a UTF-8 locale, e.g. C.UTF-8",
        )
    if 0 < terminal.columns < LEAST_COLUMNS:
        yield Problem(
            f"the terminal has only {terminal.columns} columns:"
            " the screen shows one side at a time",
            f"make it {LEAST_COLUMNS} columns wide or wider",
        )
