"""The model's own modules, run one after the other, over a cache that grows in steps."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from quantchat.worker.decode.caches import (
    cache_parameter,
    can_roll_back,
    growing_cache,
    position_argument,
    roll_back_to,
)
from quantchat.worker.decode.steps import Interrupted, Stopped
from quantchat.worker.memory import kv_cache_bytes


class EagerStep:
    """A step through a transformers causal language model, of whatever architecture."""

    def __init__(self, model: Any, name: str = "eager") -> None:
        self.name = name
        self._model = model
        self._cache_parameter = cache_parameter(model)
        self._positions = position_argument(model)
        self.cache = growing_cache(model.config)
        self._length = 0
        """Tokens cached. A recurrent model's cache does not tell."""

    def run(self, tokens: Any, stopped: Stopped | None = None) -> Any:
        """Append `tokens`, ids of shape (1, n); return the last one's logits, (1, vocabulary)."""
        import torch

        before, after = self._length, self._length + tokens.shape[1]
        more = {self._cache_parameter: self.cache}
        if self._positions:
            more[self._positions] = torch.arange(before, after, device=tokens.device).unsqueeze(0)
        try:
            with torch.inference_mode(), _asked_between_blocks(self._model, stopped):
                output = self._model(
                    input_ids=tokens,
                    **more,
                    use_cache=True,
                    logits_to_keep=1,
                )
        except _Stop:
            kept = bool(before) and roll_back_to(self.cache, before)
            if not kept:
                self.forget()
            raise Interrupted(kept=kept) from None
        self._length = after
        return output.logits[:, -1]

    def prepare(self, first: int, last: int) -> None:
        """Nothing is made ahead."""

    def cut(self, tokens: int) -> bool:
        """Take the last `tokens` off the cache, where its layers can do that."""
        if not can_roll_back(self.cache):
            return False
        self.cache.crop(-tokens)
        self._length -= tokens
        return True

    def forget(self) -> None:
        """Drop the KV cache and give its memory back."""
        self.cache = growing_cache(self._model.config)
        self._length = 0
        release(self._model.device)

    def kv_bytes(self) -> int:
        """Bytes allocated for the KV cache."""
        return kv_cache_bytes(self.cache)


class _Stop(Exception):
    """Leaves a model's forward pass."""


def _asked_between_blocks(model: Any, stopped: Stopped | None) -> AbstractContextManager[None]:
    """Have each block of `model` ask `stopped` before it begins; _Stop leaves the forward pass."""
    if stopped is None:
        return nullcontext()
    from quantchat.worker.decode.blocks import before_each_block

    asked = stopped

    def ask() -> None:
        if asked():
            raise _Stop

    return before_each_block(model, ask)


def release(device: Any) -> None:
    """Hand what torch's allocator no longer uses back to the device."""
    if device.type == "cuda":
        import torch

        torch.cuda.empty_cache()
