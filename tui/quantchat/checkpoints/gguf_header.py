"""Read the header of a GGUF file as the config and tensors of a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantchat.common.gguf import BadGguf, read_header
from quantchat.errors import UserError
from quantchat.estimate.model_files import ModelFiles, TensorInfo
from quantchat.text import one_line

_KEYS = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "vocab_size": "vocab_size",
}
"""Key: a GGUF key without the architecture's name before it; value: the key of `config.json` for
the same fact. Source: transformers' `GGUF_CONFIG_MAPPING`."""

_WITH_A_WINDOW = {"gemma2": "gemma2", "gemma3": "gemma3_text", "gpt-oss": "gpt_oss"}
"""Key: a GGUF architecture whose sliding window transformers reads from the file's metadata; value:
its `model_type` in transformers. transformers ignores the window of all other architectures."""


def read_gguf(file: Path) -> ModelFiles:
    """Return the config and tensor headers of the GGUF file `file`.

    If `file` is a part of a split model, the headers of all parts are returned. The dtype of a
    tensor is GGML's name of its type, e.g. `Q4_K`. Raises UserError.
    """
    try:
        header = read_header(file)
    except OSError as error:
        raise UserError(
            f"cannot be read: {error.strerror or error}", where=one_line(str(file))
        ) from error
    except BadGguf as error:
        raise UserError(str(error), where=one_line(str(file)), hint=error.hint) from error
    tensors = {
        name: TensorInfo(tensor.kind.name, tensor.shape) for name, tensor in header.tensors.items()
    }
    config = _config(header.metadata)
    if (embedding := tensors.get("token_embd.weight")) is not None:
        config.setdefault("vocab_size", embedding.shape[0])
    return ModelFiles(config, tensors, names=frozenset([file.name]))


def _config(metadata: Mapping[str, Any]) -> dict[str, object]:
    """Return the keys of `config.json` that transformers derives from the metadata."""
    kind = str(metadata.get("general.architecture"))
    config = {to: metadata.get(f"{kind}.{key}") for key, to in _KEYS.items()}
    config["model_type"] = _WITH_A_WINDOW.get(kind, kind)
    if kind in _WITH_A_WINDOW:
        config["sliding_window"] = metadata.get(f"{kind}.attention.sliding_window")
    return {key: value for key, value in config.items() if value is not None}
