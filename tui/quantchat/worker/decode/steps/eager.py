"""A decode step with the model's own modules, and a cache that grows by many tokens at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
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
    """A step through a causal language model of transformers, of any architecture."""

    def __init__(
        self, model: Any, name: str = "eager", new_cache: Callable[[], Any] | None = None
    ) -> None:
        """Use the caches that `new_cache` creates; without it, `caches.growing_cache`."""
        self.name = name
        self._new_cache = new_cache or (lambda: growing_cache(model.config))
        self._model = model
        self._cache_parameter = cache_parameter(model)
        self._positions = position_argument(model)
        self.cache = self._new_cache()
        self._length = 0
        """Number of cached tokens, counted here because the cache of a recurrent model does not
        know its length."""

    def run(self, tokens: Any, stopped: Stopped | None = None) -> Any:
        """Append `tokens`, ids of shape (1, n); return the last one's logits, (1, vocabulary)."""
        import torch

        before, after = self._length, self._length + tokens.shape[1]
        more = {self._cache_parameter: self.cache}
        if self._positions:
            more[self._positions] = torch.arange(before, after, device=tokens.device).unsqueeze(0)
        try:
            with torch.inference_mode(), _stop_between_blocks(self._model, stopped):
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
            raise Interrupted(cache_intact=kept) from None
        self._length = after
        return output.logits[:, -1]

    def prepare(self, first: int, last: int) -> None:
        """Do nothing: no length needs preparation."""

    def cut(self, tokens: int) -> bool:
        """Remove the last `tokens` from the cache; return False if its layers cannot do that."""
        if not can_roll_back(self.cache):
            return False
        self.cache.crop(-tokens)
        self._length -= tokens
        return True

    def forget(self) -> None:
        """Drop the KV cache and free its memory."""
        self.cache = self._new_cache()
        self._length = 0
        release_unused(self._model.device)

    def kv_bytes(self) -> int:
        """Return the bytes allocated for the KV cache."""
        return kv_cache_bytes(self.cache)


class _Stop(Exception):
    """Ends a model's forward pass early."""


def _stop_between_blocks(model: Any, stopped: Stopped | None) -> AbstractContextManager[None]:
    """While the context lasts, raise _Stop before a block of `model` once `stopped` is true."""
    if stopped is None:
        return nullcontext()
    must_stop = stopped

    def check() -> None:
        if must_stop():
            raise _Stop

    return before_each_block(model, check)


@contextmanager
def before_each_block(model: Any, call: Callable[[], None]) -> Iterator[None]:
    """Call `call` before each decoder block of `model`, for as long as the context lasts.

    If `call` raises an exception, the forward pass ends, so that long work can be stopped. The
    hooks on the blocks are removed afterwards, because a compiled step must not find any hooks.
    """
    import torch

    lists = (m for m in model.modules() if isinstance(m, torch.nn.ModuleList))
    blocks = max(lists, key=len, default=())
    hooks = [block.register_forward_pre_hook(lambda *_: call()) for block in blocks]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def release_unused(device: Any) -> None:
    """Let torch's allocator free the memory on `device` that it has reserved but does not use."""
    if device.type == "cuda":
        import torch

        torch.cuda.empty_cache()
