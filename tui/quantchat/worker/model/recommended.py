"""Read the sampling settings that a model's own files recommend.

The keys are the names of fields of `quantchat.wire.messages.Sampling`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

GENERATION_CONFIG = "generation_config.json"
GGUF_METADATA = "GGUF metadata"
"""Values of `ModelInfo.recommended_by`: where the settings come from."""

_NAMES = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
"""The keys of generation_config.json that are used. vLLM takes its defaults from the same keys."""
_IN_GGUF = {
    "temperature": "general.sampling.temp",
    "top_p": "general.sampling.top_p",
    "top_k": "general.sampling.top_k",
    "min_p": "general.sampling.min_p",
    "repetition_penalty": "general.sampling.penalty_repeat",
}
"""Key: the name of a setting; value: its key in GGUF metadata:
https://github.com/ggml-org/llama.cpp/blob/master/gguf-py/gguf/constants.py (SAMPLING_…)."""


def of_folder(folder: str) -> dict[str, float]:
    """Return the settings in `generation_config.json` of a model's `folder`.

    Empty if there is no such file or it cannot be read.

    `do_sample: false` recommends greedy decoding, whatever the other keys say.
    """
    try:
        read = json.loads(Path(folder, GENERATION_CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(read, dict):
        return {}
    if read.get("do_sample") is False:
        return {"temperature": 0.0}
    return _numbers({name: read.get(name) for name in _NAMES})


def of_gguf(metadata: Mapping[str, Any]) -> dict[str, float]:
    """Return the settings that the metadata of a GGUF file recommends."""
    return _numbers({name: metadata.get(key) for name, key in _IN_GGUF.items()})


def _numbers(settings: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: round(float(value), 6)  # GGUF stores float32
        for name, value in settings.items()
        if type(value) in (int, float) and math.isfinite(value)
    }
