"""KV caches of whichever transformers there is.

A worker may run under another interpreter with an older one. transformers 4 knows no layers of a
cache that could be replaced, and keeps sliding windows like everything else.
"""

from __future__ import annotations

import inspect
from typing import Any


def growing_cache(config: Any) -> Any:
    """A cache that grows in steps for a model of `config`; with transformers 4 its own one."""
    try:
        from quantchat.worker.decode import growing_cache as growing
    except ImportError:
        return plain_cache(config)
    return growing.growing_cache(config)


def plain_cache(config: Any) -> Any:
    """Transformers' own cache, which copies all it holds to append a token."""
    from transformers import DynamicCache

    try:
        return DynamicCache(config=config)
    except TypeError:
        return DynamicCache()


def cache_parameter(model: Any) -> str:
    """What `model.forward` calls its KV cache: `cache`, or `past_key_values`.

    transformers 5.24 renamed it, and passes over the old name from 5.40 on, without a word. Older
    releases, and models that bring their own code, know the old name alone.
    """
    named = inspect.signature(model.forward).parameters
    return "cache" if "cache" in named else "past_key_values"


def position_argument(model: Any) -> str:
    """`position_ids` where `model.forward` must be told them; empty where it works them out.

    transformers' `generate` always tells them, and some models (Bamba) count from 0 without. Models
    whose positions have several dimensions work them out of what is cached.
    """
    if any(hasattr(module, "get_rope_index") for module in model.modules()):
        return ""
    return "position_ids" if "position_ids" in inspect.signature(model.forward).parameters else ""


def can_roll_back(cache: Any) -> bool:
    """Whether tokens can be taken off the end; sliding windows and recurrent states cannot.

    A layer with attention beside a recurrent state is not sliding, and yet no `crop` restores it.
    """
    layers = getattr(cache, "layers", None) or []
    return not any(
        getattr(layer, "is_sliding", True) or not getattr(layer, "is_croppable", True)
        for layer in layers
    )


def has_states(cache: Any) -> bool:
    """Whether a layer holds a recurrent state or a convolution's, beside or in place of keys."""
    return any(hasattr(layer, "recurrent_states") for layer in getattr(cache, "layers", None) or [])


def roll_back_to(cache: Any, tokens: int) -> bool:
    """Keep the first `tokens`, more than 0, of each layer; False, and nothing done, if it cannot.

    A forward pass that was left in the middle has appended to some of the layers only.
    """
    if not can_roll_back(cache):
        return False
    layers = getattr(cache, "layers", None)
    if layers is None:  # transformers 4
        cache.crop(tokens)
        return True
    for layer in layers:
        layer.crop(tokens - layer.get_seq_length())
    return True
