"""The model's own modules, run one after the other, over a cache that grows in steps."""

from __future__ import annotations

from typing import Any

from quantchat.worker.decode.caches import can_roll_back, growing_cache
from quantchat.worker.memory import kv_cache_bytes


class EagerStep:
    """A step through a transformers causal language model, of whatever architecture."""

    def __init__(self, model: Any, name: str = "eager") -> None:
        self.name = name
        self._model = model
        self.cache = growing_cache(model.config)

    def run(self, tokens: Any) -> Any:
        """Append `tokens`, ids of shape (1, n); return the last one's logits, (1, vocabulary)."""
        import torch

        with torch.inference_mode():
            output = self._model(
                input_ids=tokens, past_key_values=self.cache, use_cache=True, logits_to_keep=1
            )
        return output.logits[:, -1]

    def cut(self, tokens: int) -> bool:
        """Take the last `tokens` off the cache, where its layers can do that."""
        if not can_roll_back(self.cache):
            return False
        self.cache.crop(-tokens)
        return True

    def forget(self) -> None:
        """Drop the KV cache and give its memory back."""
        self.cache = growing_cache(self._model.config)
        release(self._model.device)

    def kv_bytes(self) -> int:
        """Bytes allocated for the KV cache."""
        return kv_cache_bytes(self.cache)


def release(device: Any) -> None:
    """Hand what torch's allocator no longer uses back to the device."""
    if device.type == "cuda":
        import torch

        torch.cuda.empty_cache()
