"""The two files of a LoRA adapter, and a hash of both."""

from __future__ import annotations

import hashlib
from pathlib import Path

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def digest(folder: Path) -> str:
    """Return the SHA-256 over the hashes of an adapter's two files. Raises OSError."""
    whole = hashlib.sha256()
    for name in (CONFIG, WEIGHTS):
        whole.update(hashlib.sha256((folder / name).read_bytes()).digest())
    return whole.hexdigest()
