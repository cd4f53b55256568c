"""KV caches of the installed transformers, which may be an older release.

A worker may run under another interpreter, with transformers 4. In that version, a cache has no
layers that could be replaced, and sliding windows are stored like full attention.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from quantchat.common.kv_cache import GROUP, KV_CACHES
from quantchat.wire.messages import LoadModel
from quantchat.worker.failures import Refused


def growing_cache(config: Any) -> Any:
    """Return a cache for a model of `config` that allocates memory for many tokens at a time.

    With transformers 4, return `plain_cache`.
    """
    try:
        from quantchat.worker.decode import growing_cache as growing
    except ImportError:
        return plain_cache(config)
    return growing.growing_cache(config)


def plain_cache(config: Any) -> Any:
    """Return transformers' own cache, which copies all its contents each time it appends."""
    from transformers import DynamicCache

    try:
        return DynamicCache(config=config)
    except TypeError:
        return DynamicCache()


def variant_cache(command: LoadModel, config: Any) -> Callable[[], Any] | None:
    """Return a function that creates quantized KV caches; None if `command` requires none.

    Raises Refused if this release of transformers has no such cache for the model of `config`.
    """
    kind = command.option("kv_cache", "")
    if not kind:
        return None

    def new_cache() -> Any:
        return _quantized_cache(kind, config)

    new_cache()  # raises Refused now, not at the first prompt
    return new_cache


def _quantized_cache(kind: str, config: Any) -> Any:
    """Return an empty cache of transformers in the format `kind`. Raises Refused."""
    form, more = KV_CACHES[kind], {}
    if form.recent:
        text = config.get_text_config(decoder=True)
        head = getattr(text, "head_dim", 0) or text.hidden_size // text.num_attention_heads
        group = next(size for size in (GROUP, 32, 16, 8, 4, 2, 1) if head % size == 0)
        # A format of HQQ. The elements that share a scale lie in one head (axis 1), as transformers
        # recommends. The other format, fp8, has no such options: its number of bits is fixed, a
        # layer has one scale, and no recent tokens stay unquantized.
        more = {"nbits": form.bits, "axis_key": 1, "axis_value": 1, "q_group_size": group}
        more["residual_length"] = form.recent
    try:
        from transformers import QuantizedCache

        return QuantizedCache(form.backend, config, **more)
    except (ImportError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise Refused(
            "unsupported",
            f'kv_cache = "{kind}" is not possible for this model: {reason}',
            "leave kv_cache out",
        ) from error


def cache_parameter(model: Any) -> str:
    """Return the parameter of `model.forward` for the KV cache: `cache` or `past_key_values`.

    transformers 5.24 renamed it, and will silently ignore the old name from 5.40 on. Older releases
    and models with their own code know only the old name.
    """
    named = inspect.signature(model.forward).parameters
    return "cache" if "cache" in named else "past_key_values"


def position_argument(model: Any) -> str:
    """Return `position_ids` if `model.forward` needs them, else an empty text.

    transformers' `generate` always passes them. Without them, some models (Bamba) count the
    positions from 0 in each call. Models whose positions have several dimensions compute them from
    the cache, so they do not need the argument.
    """
    if any(hasattr(module, "get_rope_index") for module in model.modules()):
        return ""
    return "position_ids" if "position_ids" in inspect.signature(model.forward).parameters else ""


def can_roll_back(cache: Any) -> bool:
    """Return whether tokens can be removed from the end of `cache`.

    They cannot be removed from sliding windows and recurrent states. `is_sliding` alone does not
    show that: it is False for a layer with both attention and a recurrent state, and `crop` does
    not restore the state.
    """
    layers = getattr(cache, "layers", None) or []
    return not any(
        getattr(layer, "is_sliding", True) or not getattr(layer, "is_croppable", True)
        for layer in layers
    )


def has_states(cache: Any) -> bool:
    """Return whether a layer has a recurrent or convolution state, beside or instead of keys."""
    return any(hasattr(layer, "recurrent_states") for layer in getattr(cache, "layers", None) or [])


def roll_back_to(cache: Any, tokens: int) -> bool:
    """Cut each layer to its first `tokens` (more than 0); return False if that is not possible.

    An interrupted forward pass has appended its tokens to some of the layers only, so the layers
    may have different lengths.
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
