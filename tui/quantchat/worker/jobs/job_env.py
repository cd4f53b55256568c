"""First steps of a job: enter the workspace, set the threads, find or fetch the model's files."""

from __future__ import annotations

import contextlib
import ctypes
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from quantchat.wire.jobs import Workspace
from quantchat.wire.messages import LoadModel
from quantchat.worker.model.files_check import check_kind
from quantchat.worker.model.hub import checkpoint, of_mib, small_files
from quantchat.worker.model.tokenizer import fetch_named, load_tokenizer
from quantchat.worker.report import Report

NICENESS = 10
"""Niceness of jobs: a running chat has priority over building the next checkpoint."""

_M_MMAP_THRESHOLD = -3
"""Value of M_MMAP_THRESHOLD in glibc's malloc.h."""


def prepare_process(workspace: Workspace, *, background: bool = True) -> None:
    """Set this process' threads and priority, and make `scratch` the current folder.

    GPTQModel writes `logs/` into the current folder. With `background` the process gets a low
    priority, which a job whose time is measured must not have.
    """
    import torch

    if background:
        os.nice(NICENESS)
    os.chdir(workspace.scratch)
    if workspace.threads:
        torch.set_num_threads(workspace.threads)


def return_freed_memory() -> None:
    """Make glibc return blocks of 1 MiB and more to the system as soon as they are freed.

    This size is a threshold of glibc (M_MMAP_THRESHOLD in mallopt(3)), which glibc by default
    raises to the size of the largest freed block, up to 32 MiB. glibc does not return smaller freed
    blocks that lie between blocks in use. While layer after layer was quantized, the memory that
    was not returned grew to several times the model's size. The price of returning memory is page
    faults when it is allocated again. With another C library, this function does nothing.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 2**20)


def with_local_files(load: LoadModel, report: Report) -> LoadModel:
    """Return `load` with a local folder as its model; fetch the files if the model is a hub id.

    Fetches the same files as loading a variant: no pickled weights, which can run any code when
    they are opened, and no copies of the weights in formats for other programs. Raises Refused,
    also for a model of a kind that no job supports.
    """
    if Path(load.model).is_dir():
        check_kind(load.model, load.reader)
        return load

    def tell(done: int, total: int) -> None:
        report(0, 0, f"fetched {of_mib(done, total)}")

    check_kind(str(small_files(load)), load.reader)
    found = checkpoint(load, tell)
    if found.note:
        report(0, 0, found.note)
    return replace(load, model=str(found.folder), revision=None)


def tokenizer_for(load: LoadModel, **more: Any) -> Any:
    """Load the tokenizer that the profile names; if it names none, that of the model.

    The model must be in a local folder. `more` are arguments for `AutoTokenizer.from_pretrained`.
    Raises Refused.
    """
    return load_tokenizer(fetch_named(load), **more)
