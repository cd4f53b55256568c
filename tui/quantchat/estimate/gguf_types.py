"""The tensor types of a GGUF file that is yet to be made, as llama.cpp chooses them.

The rules are those of llama.cpp's `llama_tensor_get_type` for dense models; auto-round 0.16 has a
copy of them (`export_to_gguf/gguf_dtype.py`). The name of a format, such as `q4_k_m`, states the
type of most tensors. The tensors that quantization harms most get a type with more bits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from quantchat.common.gguf import BY_NAME
from quantchat.estimate.model_files import EMBEDDING, HEAD, ModelFiles, TensorInfo

_LAYER = re.compile(r"\.(\d+)\.")
_VALUE = re.compile(r"\.v_proj\.weight$")
_DOWN = re.compile(r"\.(?:down_proj|c_proj|fc2|w2)\.weight$")
_OUTPUT = re.compile(r"\.o_proj\.weight$")

_FALLBACKS = {"Q6_K": "Q8_0", "Q2_K": "Q5_0", "Q3_K": "Q5_0", "Q4_K": "Q5_0", "Q5_K": "Q5_0"}
"""Key: a type that has blocks of 256 weights; value: the type that replaces it for a tensor whose
width is not a multiple of 256."""


def built_files(files: ModelFiles, form: str) -> ModelFiles:
    """Return the headers of the GGUF file that is made from `files`.

    `form` is llama.cpp's name of the format, such as `q4_k_m`.
    """
    text = next((c for c in files.configs if c.get("num_hidden_layers")), {})
    layers = _int(text, "num_hidden_layers")
    sharing = _int(text, "num_attention_heads") // max(1, _int(text, "num_key_value_heads"))
    head = HEAD if any(map(HEAD.search, files.tensors)) else EMBEDDING

    def kind(name: str, tensor: TensorInfo) -> str:
        if len(tensor.shape) < 2:
            return "F32"
        if head.search(name):
            return _fitting("Q8_0" if form == "q8_0" else "Q6_K", tensor)
        found = _LAYER.search(name)
        layer = int(found[1]) if found else 0
        return _fitting(block_type(form, name, layer, layers, sharing), tensor)

    tensors = {name: replace(one, dtype=kind(name, one)) for name, one in files.tensors.items()}
    return replace(files, tensors=tensors)


def _fitting(wanted: str, tensor: TensorInfo) -> str:
    """Return the type `wanted`, or a replacement if its blocks do not fit the width of `tensor`."""
    for kind in (wanted, _FALLBACKS.get(wanted, wanted)):
        if tensor.shape[-1] % BY_NAME[kind].weights == 0:
            return kind
    return "BF16"


def block_type(form: str, name: str, layer: int, layers: int, sharing: int) -> str:
    """Return the type that the matrix `name` gets in a file of the format `form`.

    `layer` is the index of the matrix's layer, `layers` the number of layers. `sharing` is the
    number of query heads that share a key-value head.
    """
    form = form.upper()
    most = form.removesuffix("_S").removesuffix("_M").removesuffix("_L")
    value, down = bool(_VALUE.search(name)), bool(_DOWN.search(name))
    first = layer < layers // 8
    more = first or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2
    match form:
        case "Q2_K_S" if (value and sharing >= 4) or (down and first):
            return "Q4_K"
        case "Q3_K_M" if value:
            return "Q5_K" if layer < 2 else "Q4_K"
        case "Q3_K_M" if down:
            return "Q5_K" if layer < layers // 16 else "Q4_K"
        case "Q3_K_M" if _OUTPUT.search(name):
            return "Q4_K"
        case "Q3_K_L" if value or down or _OUTPUT.search(name):
            return "Q5_K"
        case "Q4_K_S" if (value and layer < 4) or (down and first):
            return "Q5_K"
        case "Q4_K_M" | "Q5_K_M" if (value or down) and more:
            return "Q6_K"
    return most


def _int(config: Mapping[str, object], key: str) -> int:
    value = config.get(key)
    return value if type(value) is int else 1
