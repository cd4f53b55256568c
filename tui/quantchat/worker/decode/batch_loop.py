"""Decode a batch of prompts together: one prefill, then steps that give a token to each prompt.

A static batch: all prompts start at once and give the same number of tokens. Prompts are aligned at
their ends, with padding on the left that attention masks. The model's own modules compute it, each
kernel launched from Python; on a CPU its linear layers call their kernels directly, as in a chat.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from quantchat.worker.decode import cpu
from quantchat.worker.decode.caches import cache_parameter, plain_cache, position_argument
from quantchat.worker.decode.native_loop import CHUNK
from quantchat.worker.decode.steps import Step
from quantchat.worker.decode.steps.eager import release
from quantchat.worker.memory import kv_cache_bytes


@dataclass(frozen=True)
class Batch:
    """What a batch gave. Times are in ns."""

    tokens: list[list[int]]
    """The greedy tokens of each prompt."""
    prefill_ns: int
    """From the start until the first token of each prompt is known."""
    steps_ns: list[int]
    kv_bytes: int


class BatchLoop:
    """Decodes batches with a causal language model of transformers; token ids are on `device`.

    `fault` compares a step with the model's own modules, as for `cpu.fast_step`. `new_cache` makes
    its caches; without it they are transformers' own.
    """

    def __init__(
        self,
        model: Any,
        device: Any,
        fault: Callable[[Step], str],
        new_cache: Callable[[], Any] | None = None,
    ) -> None:
        self._model, self._device = model, device
        self._new_cache = new_cache or (lambda: plain_cache(model.config))
        step = None
        if device.type == "cpu":
            step = cpu.fast_step(model, fault, batches=True).step
        self.name = f"static batch, {step.name if step else 'eager'}"
        """The name that `Resolved.decode` shows."""
        self._cache_parameter = cache_parameter(model)
        self._positions = position_argument(model)

    def decode(self, prompts: Sequence[Sequence[int]], output_tokens: int) -> Batch:
        """Give `output_tokens` greedy tokens (at least 1) to each of `prompts`.

        No token ends an answer. The memory of the KV cache is free afterwards.
        """
        import torch

        longest = max(map(len, prompts))
        padding = [longest - len(prompt) for prompt in prompts]
        ids = torch.tensor(
            [[0] * left + list(prompt) for left, prompt in zip(padding, prompts, strict=True)],
            device=self._device,
        )
        mask = torch.ones((len(prompts), longest + output_tokens), dtype=torch.long)
        for row, left in enumerate(padding):
            mask[row, :left] = 0
        mask = mask.to(self._device)
        cache = self._new_cache()
        try:
            began = time.perf_counter_ns()
            for start in range(0, longest, CHUNK):
                logits = self._run(ids[:, start : start + CHUNK], mask, start, cache)
            columns, at = [self._read(logits)], [time.perf_counter_ns()]
            for count in range(output_tokens - 1):
                token = torch.tensor(columns[-1], device=self._device).unsqueeze(1)
                logits = self._run(token, mask, longest + count, cache)
                columns.append(self._read(logits))
                at.append(time.perf_counter_ns())
            steps = [later - earlier for earlier, later in pairwise(at)]
            tokens = [list(row) for row in zip(*columns, strict=True)]
            return Batch(tokens, at[0] - began, steps, kv_cache_bytes(cache))
        finally:
            del cache
            release(self._device)

    def _run(self, ids: Any, mask: Any, before: int, cache: Any) -> Any:
        """Append `ids`, shape (batch, n), after `before` positions; return (batch, vocabulary)."""
        import torch

        after = before + ids.shape[1]
        seen = mask[:, :after]
        more: dict[str, Any] = {self._cache_parameter: cache}
        if self._positions:
            more[self._positions] = (seen.cumsum(-1) - 1).clamp(min=0)[:, before:]
        with torch.inference_mode():
            output = self._model(
                input_ids=ids, attention_mask=seen, **more, use_cache=True, logits_to_keep=1
            )
        return output.logits[:, -1]

    @staticmethod
    def _read(logits: Any) -> list[int]:
        """Return the likeliest token of each row; waits for the device."""
        return [int(one) for one in logits.argmax(-1).tolist()]
