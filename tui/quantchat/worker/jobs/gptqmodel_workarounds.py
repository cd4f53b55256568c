"""What GPTQModel 7.6 does otherwise than it says, mended for as long as it quantizes."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any


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


def _source_identity(model: Any) -> dict[str, str]:
    """SHA-256 of the config and of each file of weights, by name, as GPTQModel keeps it."""
    folder = Path(model.model_local_path)
    names = ["config.json", *sorted(file.name for file in folder.glob("*.safetensors"))]
    found = {}
    for name in names:
        with (folder / name).open("rb") as stream:
            found[name] = _file_digest(stream, "sha256").hexdigest()
    return found


def _file_digest(stream: Any, name: str) -> Any:
    """What `hashlib.file_digest` returns, which Python 3.10 does not have."""
    digest = hashlib.new(name)
    while block := stream.read(2**20):
        digest.update(block)
    return digest
