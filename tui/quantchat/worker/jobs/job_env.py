"""What each job does first: the place to write, the threads, the model's files."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
from pathlib import Path
from typing import Any

from quantchat.common.input_files import MOST_JSON, read_regular
from quantchat.common.model_folder import TRANSFORMERS
from quantchat.wire.messages import Load
from quantchat.worker.failures import Refused
from quantchat.worker.jobs import Report
from quantchat.worker.model.files_check import check_kind
from quantchat.worker.model.hub import checkpoint, described, of_mib
from quantchat.worker.model.tokenizer import fetch_lent, load_tokenizer

NICENESS = 10
"""A chat with a variant that is ready comes before the making of the next one."""


_M_MMAP_THRESHOLD = -3
"""In glibc's malloc.h."""


def settle(options: dict[str, Any]) -> None:
    """Take up `options["threads"]`, and make `options["scratch"]` the current folder.

    GPTQModel writes `logs/` into the current folder, whatever that is.
    """
    import torch

    os.nice(NICENESS)
    os.chdir(options["scratch"])
    if threads := options.get("threads", 0):
        torch.set_num_threads(threads)


def give_freed_memory_back() -> None:
    """Have blocks of 1 MiB and more given back to the system as soon as they are freed.

    By itself glibc raises that limit to the largest block that was freed, up to 32 MiB
    (M_MMAP_THRESHOLD in mallopt(3)), and keeps what lies between blocks in use: quantizing layer
    after layer, that came to several times the model. Costs page faults. Without effect where the C
    library is another one.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 2**20)


def local_folder(options: dict[str, Any], report: Report) -> str:
    """Folder with the files of `options["model"]`, fetched from the hub where it is an id.

    Fetched as for a variant that is loaded: neither pickled weights, which can run any code when
    they are opened, nor the same weights for other programs. Raises Refused, also for a model that
    is none to work on.
    """
    model: str = options["model"]
    if Path(model).is_dir():
        check_kind(model, TRANSFORMERS)
        return model

    def tell(done: int, total: int) -> None:
        report(0, 0, f"fetched {of_mib(done, total)}")

    revision, trusted = options["revision"], options["trusted"]
    command = Load("", model, {}, revision=revision, trust_remote_code=trusted)
    check_kind(str(described(command)), TRANSFORMERS)
    found = checkpoint(command, tell)
    if found.note:
        report(0, 0, found.note)
    return str(found.folder)


def lent(options: dict[str, Any]) -> dict[str, Any]:
    """What an engine is told of the tokenizer lent to the model, if one is."""
    return {"tokenizer": options["tokenizer"]} if options.get("tokenizer") else {}


def tokenizer_for(options: dict[str, Any], folder: str, **more: Any) -> Any:
    """The tokenizer of the model in `folder`, or the one lent to it. Raises Refused."""
    command = Load("", folder, lent(options), trust_remote_code=options["trusted"])
    return load_tokenizer(fetch_lent(command), **more)


def refuse_quantized(folder: str) -> None:
    """Raise Refused where the model in `folder` is quantized already, or is none."""
    try:
        config = json.loads(read_regular(Path(folder, "config.json"), MOST_JSON))
    except (OSError, ValueError) as error:
        raise Refused(
            "bad_checkpoint",
            f"{folder} has no config.json that can be read",
            "name a folder that holds a model (config.json and *.safetensors)",
        ) from error
    if told := config.get("quantization_config"):
        raise Refused(
            "unsupported",
            f"the model is already quantized ({told.get('quant_method', 'bitsandbytes')})",
            "name the model in full precision that it was made from",
        )
