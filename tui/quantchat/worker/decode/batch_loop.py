"""Decode a batch of prompts together: one prefill, then steps that add a token to each answer.

The batch is static: all prompts start at once, and all answers get the same number of tokens.
Shorter prompts are padded on the left, and the attention mask excludes the padding. The modules of
the transformers model compute the batch, without a CUDA graph and without torch.compile. On a CPU
the linear layers call their quantized kernels without the library's Python wrapper, as they do for
the single prompts of a chat.
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
from quantchat.worker.decode.steps.eager import release_unused
from quantchat.worker.memory import kv_cache_bytes


@dataclass(frozen=True)
class Batch:
    """The tokens and times of one batch. Times are in ns."""

    tokens: list[list[int]]
    """The greedy tokens of each prompt."""
    prefill_ns: int
    """From the start until the first output token of each prompt has been computed."""
    steps_ns: list[int]
    """The time of each further step, which adds one token to each answer."""
    kv_bytes: int
    """Size of the KV cache at the end."""


class BatchLoop:
    """Decodes batches with a causal language model of transformers, whose inputs are on `device`.

    `fault` compares a faster decode step with the unchanged model on the same tokens, and returns
    how they differ, or an empty text (see `cpu.fast_step`). `new_cache` creates the KV caches;
    None: use the caches of transformers.
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
            # This call patches the model's layers in place, so that they call their kernels
            # directly. The patched model computes the batches; of the step that the call returns,
            # only the name is used.
            step = cpu.fast_step(model, fault, batches=True).step
        self.name = f"static batch, {step.name if step else 'eager'}"
        """The decode mode, for the report of what ran (`wire.variant.ModelInfo.decode`)."""
        self._cache_parameter = cache_parameter(model)
        self._positions = position_argument(model)

    def decode(self, prompts: Sequence[Sequence[int]], output_tokens: int) -> Batch:
        """Generate exactly `output_tokens` greedy tokens (at least 1) for each of `prompts`.

        End-of-sequence tokens do not end an answer. The KV cache is released before this returns.
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
            by_step, times = [self._read(logits)], [time.perf_counter_ns()]
            for count in range(output_tokens - 1):
                token = torch.tensor(by_step[-1], device=self._device).unsqueeze(1)
                logits = self._run(token, mask, longest + count, cache)
                by_step.append(self._read(logits))
                times.append(time.perf_counter_ns())
            steps = [later - earlier for earlier, later in pairwise(times)]
            tokens = [list(row) for row in zip(*by_step, strict=True)]
            return Batch(tokens, times[0] - began, steps, kv_cache_bytes(cache))
        finally:
            del cache
            release_unused(self._device)

    def _run(self, ids: Any, mask: Any, before: int, cache: Any) -> Any:
        """Run the model on `ids`, shape (batch, n), which follow `before` cached positions.

        Return the logits at the last position, shape (batch, vocabulary).
        """
        import torch

        after = before + ids.shape[1]
        seen = mask[:, :after]
        more: dict[str, object] = {self._cache_parameter: cache}
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
