"""Workarounds for faults of GPTQModel 7.6, active while it quantizes."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO


@contextlib.contextmanager
def follow_links() -> Iterator[None]:
    """Let GPTQModel store finished layers of a model whose files are links to another folder.

    In the Hugging Face cache every file is a link to `../../blobs/…`. GPTQModel identifies a model
    by the hashes of its files, and refuses a file outside the folder (looper/gptq_checkpoint.py,
    `_source_identity`), so no model from the hub could be quantized. Remove this once GPTQModel
    follows links.
    """
    from gptqmodel.looper import gptq_checkpoint

    original = gptq_checkpoint._source_identity
    gptq_checkpoint._source_identity = _source_identity
    try:
        yield
    finally:
        gptq_checkpoint._source_identity = original


@contextlib.contextmanager
def add_file_digest() -> Iterator[None]:
    """Add `hashlib.file_digest` to Python 3.10.

    GPTQModel declares support of Python 3.10 but calls this function of 3.11
    (looper/checkpoint_store.py). Remove this when support of Python 3.10 ends.
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
def only_on(device: str) -> Iterator[None]:
    """Quantize only on `device`, on a machine with several GPUs.

    GPTQModel first uses the `device` it is given, and then all other devices of its type
    (utils/looper_helpers.py, `select_forward_devices`), even GPUs that are in use or have too
    little memory. Its option `compute_device_filter` is not applied where it captures inputs and
    runs layers. Remove this once the option is applied everywhere.
    """
    import torch
    from gptqmodel.utils import looper_helpers

    original = looper_helpers.ALL_DEVICES
    looper_helpers.ALL_DEVICES = [torch.device(device)]
    try:
        yield
    finally:
        looper_helpers.ALL_DEVICES = original


def _source_identity(model: Any) -> dict[str, str]:
    """Return the SHA-256 of the config and of each weight file, by file name, as GPTQModel does."""
    folder = Path(model.model_local_path)
    names = ["config.json", *sorted(file.name for file in folder.glob("*.safetensors"))]
    found = {}
    for name in names:
        with (folder / name).open("rb") as stream:
            found[name] = _file_digest(stream, "sha256").hexdigest()
    return found


def _file_digest(stream: BinaryIO, name: str) -> hashlib._Hash:
    """Return the hash `name` of the rest of `stream`, like `hashlib.file_digest` of 3.11."""
    digest = hashlib.new(name)
    while block := stream.read(2**20):
        digest.update(block)
    return digest
