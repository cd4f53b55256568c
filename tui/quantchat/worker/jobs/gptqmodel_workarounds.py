"""What GPTQModel 7.6 does otherwise than it says, mended for as long as it quantizes."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO


@contextlib.contextmanager
def links_followed() -> Iterator[None]:
    """Let finished layers be kept of a model whose files are links out of its folder.

    So they are in the Hugging Face cache, each a link to `../../blobs/…`. GPTQModel knows a model
    again by the hashes of its files, and refuses one that lies outside the folder
    (looper/gptq_checkpoint.py, `_source_identity`), so that nothing of the hub could be quantized.
    Can go once links are followed there.
    """
    from gptqmodel.looper import gptq_checkpoint

    kept = gptq_checkpoint._source_identity
    gptq_checkpoint._source_identity = _source_identity
    try:
        yield
    finally:
        gptq_checkpoint._source_identity = kept


@contextlib.contextmanager
def file_digest_there() -> Iterator[None]:
    """Give Python 3.10 `hashlib.file_digest`, with which GPTQModel compares what it keeps.

    GPTQModel declares Python 3.10, and calls what came with 3.11 (looper/checkpoint_store.py). Can
    go with Python 3.10.
    """
    if hasattr(hashlib, "file_digest"):
        yield
        return
    setattr(hashlib, "file_digest", _file_digest)  # noqa: B010, not in the stubs of 3.10
    try:
        yield
    finally:
        delattr(hashlib, "file_digest")


@contextlib.contextmanager
def on_one(device: str) -> Iterator[None]:
    """Keep the work of quantizing on `device`, of a machine with several GPUs.

    Whatever `device` it is given, GPTQModel takes that one first, and then all the others of its
    kind (utils/looper_helpers.py, `select_forward_devices`): memory of GPUs that others use, or
    that have too little. Its `compute_device_filter` is not asked where inputs are taken and layers
    run. Can go once that is asked everywhere.
    """
    import torch
    from gptqmodel.utils import looper_helpers

    kept = looper_helpers.ALL_DEVICES
    looper_helpers.ALL_DEVICES = [torch.device(device)]
    try:
        yield
    finally:
        looper_helpers.ALL_DEVICES = kept


def _source_identity(model: Any) -> dict[str, str]:
    """SHA-256 of the config and of each file of weights, by name, as GPTQModel keeps it."""
    folder = Path(model.model_local_path)
    names = ["config.json", *sorted(file.name for file in folder.glob("*.safetensors"))]
    found = {}
    for name in names:
        with (folder / name).open("rb") as stream:
            found[name] = _file_digest(stream, "sha256").hexdigest()
    return found


def _file_digest(stream: BinaryIO, name: str) -> hashlib._Hash:
    """The hash `name` over what is left of `stream`, as `hashlib.file_digest` of Python 3.11."""
    digest = hashlib.new(name)
    while block := stream.read(2**20):
        digest.update(block)
    return digest
