"""GGUF files that have only a header, written without the package `gguf`."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_KEYS = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.sliding_window": "sliding_window",
}


def string(text: str) -> bytes:
    """Encode a string as GGUF stores it."""
    return struct.pack("<Q", len(text.encode())) + text.encode()


Shapes = Mapping[str, Sequence[int]]


def gguf_bytes(shapes: Shapes, config: Mapping[str, Any], kind: str = "llama") -> bytes:
    """A header with a vocabulary; of tensors of these `shapes` by name, all said to be Q4_0."""
    pairs = [
        string("general.architecture") + struct.pack("<I", 8) + string(kind),
        string("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2) + string("a") + string("ß"),
        string("tokenizer.ggml.scores") + struct.pack("<IIQff", 9, 6, 2, 0.5, 1.5),
    ]
    for key, name in _KEYS.items():
        if name in config:
            pairs.append(string(f"{kind}.{key}") + struct.pack("<II", 4, config[name]))
    infos = [
        string(name)
        + struct.pack("<I", len(shape))
        + b"".join(struct.pack("<Q", size) for size in reversed(shape))
        + struct.pack("<IQ", 2, 0)
        for name, shape in shapes.items()
    ]
    counts = struct.pack("<IQQ", 3, len(infos), len(pairs))
    return b"GGUF" + counts + b"".join(pairs) + b"".join(infos)


def write_gguf(file: Path, shapes: Shapes, config: Mapping[str, Any]) -> Path:
    """Write `file` as such a GGUF, and return its path."""
    file.write_bytes(gguf_bytes(shapes, config))
    return file
