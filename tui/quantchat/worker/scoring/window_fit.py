"""Chooses the longest window that the text, the model's context and the memory allow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from quantchat.wire.jobs import Fit
from quantchat.worker.model.loaded import Loaded
from quantchat.worker.scoring.logits import Forecast

if TYPE_CHECKING:
    from quantchat.worker.llama.model import LlamaModel
    from quantchat.worker.llama.scoring import LlamaForecast

LEAST = 128
"""Shortest window, in tokens, that is chosen here; the user can set a shorter window."""

SHARE = 0.5
"""Share of the free memory that the activations of a window may take. It is only a half, because
the size of the activations is estimated."""

GIB = 2**30


def largest_window(
    longest: int,
    tokens: int,
    loaded: Loaded | LlamaModel,
    forecast: Forecast | LlamaForecast,
    fit: Fit,
) -> tuple[int, str]:
    """Return the length of the window in tokens, and why it is shorter than `longest`, else "".

    A shorter window has as its length the largest power of two that fits, so that the windows of
    different texts and models are often equally long; but at least `LEAST`. `tokens` is the length
    of the text; `fit` describes the memory (see `Fit`).
    """
    limits = [
        (tokens, f"the text has {tokens} tokens"),
        (loaded.context_length, f"the model takes {loaded.context_length}"),
        _by_memory(longest, loaded, forecast, fit),
    ]
    most, limit = min(limits, key=lambda one: one[0])
    if most >= longest:
        return longest, ""
    return max(LEAST, 1 << (max(1, most).bit_length() - 1)), limit


def _by_memory(
    longest: int, loaded: Loaded | LlamaModel, forecast: Forecast | LlamaForecast, fit: Fit
) -> tuple[int, str]:
    """Return the longest window that the memory allows, in tokens, and the reason.

    llama.cpp reads a window in pieces, so its windows need little memory and are not limited here.
    """
    free = _free(loaded, fit) if isinstance(loaded, Loaded) else None
    if free is None or not isinstance(loaded, Loaded) or not isinstance(forecast, Forecast):
        return longest, ""
    window = longest
    config = loaded.model.config.get_text_config()
    outputs = 0 if forecast.splits else forecast.vocabulary
    while window > LEAST and activation_bytes(window, config, outputs, fit.eager) > SHARE * free:
        window //= 2
    return window, f"{free / GIB:.1f} GiB of memory are free"


def activation_bytes(window: int, config: Any, outputs: int, eager: bool) -> float:
    """Estimate the bytes of intermediate results while a model reads `window` tokens.

    For each token, a layer has about eight vectors of the model's width and three of the MLP's
    width at a time, in float32 at most. `config` is the config of the text model. `outputs` is the
    size of the vocabulary if the logits of all tokens are computed at once, else 0. With `eager`
    attention, all attention scores of a layer are stored three times: in float32, as their softmax
    in float32, and as the softmax in the model's dtype.
    """
    width = int(getattr(config, "hidden_size", 0))
    mlp = int(getattr(config, "intermediate_size", 0) or 4 * width)
    heads = int(getattr(config, "num_attention_heads", 0))
    scores = heads * window if eager else 0
    return float(window * (4 * (8 * width + 3 * mlp) + 8 * outputs + 10 * scores))


def _free(loaded: Loaded, fit: Fit) -> float | None:
    """Return the bytes that are free on the model's device; None if that is unknown."""
    import torch

    if loaded.device.startswith("cuda"):
        device = loaded.input_device
        reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(torch.cuda.mem_get_info(device)[0] + reserved)
    return float(max(0, fit.memory - loaded.weight_bytes)) if fit.memory else None
