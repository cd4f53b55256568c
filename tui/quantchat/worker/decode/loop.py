"""quantchat's own decode loop over a transformers model, with a KV cache kept between turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from quantchat.worker.decode.prompt import encode_prompt
from quantchat.worker.decode.sampling import Sampler
from quantchat.worker.engines.loaded import Loaded
from quantchat.worker.failures import Refused
from quantchat.worker.memory import LedgerReader, kv_cache_bytes
from quantchat.worker.outbox import Outbox
from quantchat.worker.protocol import Generate, Ledger, Prefilled, Sampling, Started

CHUNK = {"cpu": 32, "cuda": 512}
"""Prompt tokens in one prefill step, by kind of device: a stop is answered between two steps.

Fixed, and not fitted to the speed: how a prompt is cut decides its rounding, so a greedy answer
would else differ from run to run with the load of the machine.
"""

WARM_UP_TOKENS = 32


class Decoder:
    """Answers prompts with a loaded model, one at a time."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self._model = loaded.model
        self._ids: list[int] = []
        """Tokens whose keys and values are in the cache, in order."""
        self._cache = self._empty_cache()
        self._chunk = CHUNK["cuda" if loaded.device.startswith("cuda") else "cpu"]

    # ------------------------------------------------------------ what others ask

    def answer(
        self,
        request: Generate,
        received_ns: int,
        outbox: Outbox,
        stopped: Callable[[int], bool],
    ) -> None:
        """Decode one answer, telling `outbox` each token, until it ends or `stopped(turn)`.

        Raises Refused(context_full) where the prompt leaves no room for an answer.
        """
        self._set_threads(request.threads)
        turn = request.turn
        prompt = encode_prompt(self._loaded, request.messages)
        if request.prompt_tokens:
            repeats = -(-request.prompt_tokens // len(prompt))
            prompt = (prompt * repeats)[: request.prompt_tokens]
        if request.fresh:
            self.forget()
        room = self._loaded.context_length - len(prompt)
        if room < 1:
            raise Refused(
                "context_full",
                f"the context is full: the chat has {len(prompt)} tokens, "
                f"the model takes {self._loaded.context_length}",
                "drop the oldest turn, begin a new chat, or send something shorter",
            )
        cached = self._rewind(prompt)
        outbox.send(Started(turn, received_ns, len(prompt), cached))
        outbox.begin(turn)
        most = min(request.max_new_tokens, room)
        reason = "length" if most == request.max_new_tokens else "context"
        end_tokens = frozenset() if request.ignore_eos else self._loaded.end_tokens
        logits = self._prefill(prompt[cached:], turn, outbox, stopped)
        if logits is None:
            reason, most = "stop", 0
        sampler = Sampler(request.sampling, self._loaded.input_device, prompt)
        for count in range(1, most + 1):
            token = sampler.choose(logits)
            token_id = int(token.item())  # the one synchronisation of a step
            now = time.perf_counter_ns()
            if token_id in end_tokens:
                reason = "eos"
                break
            outbox.token(token_id, now)
            if stopped(turn):
                reason = "stop"
                break
            if count < most:
                logits = self._forward([token_id], token)
        outbox.end(turn, reason, time.perf_counter_ns())
        if request.fresh:
            self.forget()

    def warm_up(self) -> None:
        """Run a short prompt and a few steps, and forget them.

        First calls repack weights, compile kernels and fill caches; TTFT must not pay for it.
        """
        ids = list(range(min(WARM_UP_TOKENS, self._loaded.context_length - 8)))
        sampler = Sampler(Sampling(), self._loaded.input_device, ids)
        logits = self._forward(ids)
        for _ in range(4):
            token = sampler.choose(logits)
            logits = self._forward([int(token.item())], token)
        self.forget()

    def forget(self) -> None:
        """Drop the KV cache and give its memory back."""
        self._ids = []
        self._cache = self._empty_cache()
        if self._loaded.device.startswith("cuda"):
            import torch

            torch.cuda.empty_cache()

    @cached_property
    def _memory(self) -> LedgerReader:
        # Not before it is asked for: kernels that repack at the first call change what is held.
        return LedgerReader(self._model, self._loaded.device)

    def ledger(self) -> Ledger:
        """Memory now."""
        return self._memory.read(kv_cache_bytes(self._cache))

    # ------------------------------------------------------------ steps

    def _forward(self, ids: Sequence[int], tensor: Any = None) -> Any:
        """Run `ids` through the model after what is cached; logits (1, vocabulary) of the last.

        `tensor`, shape (1, n), spares the copy to the device where the ids lie there already.
        """
        import torch

        if tensor is None:
            tensor = torch.tensor([list(ids)], device=self._loaded.input_device)
        with torch.inference_mode():
            output = self._model(
                input_ids=tensor,
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
            )
        self._ids += ids
        return output.logits[:, -1]

    def _prefill(
        self, ids: list[int], turn: int, outbox: Outbox, stopped: Callable[[int], bool]
    ) -> Any:
        """Compute `ids` in chunks; the last token's logits, or None where it was stopped."""
        logits = None
        done = 0
        while done < len(ids):
            if stopped(turn):
                return None
            chunk = ids[done : done + self._chunk]
            logits = self._forward(chunk)
            self._synchronise()  # lest a stop wait for all the chunks that are queued
            done += len(chunk)
            outbox.send(Prefilled(turn, done, len(ids), time.perf_counter_ns()))
        return logits

    def _rewind(self, prompt: list[int]) -> int:
        """Keep of the cache what `prompt` begins with; return how many tokens that is.

        At least one prompt token is left to compute, since its logits are needed.
        """
        same = 0
        for old, new in zip(self._ids, prompt[:-1], strict=False):
            if old != new:
                break
            same += 1
        surplus = len(self._ids) - same
        # Sliding windows and recurrent states cannot be rolled back.
        rollable = not any(getattr(layer, "is_sliding", True) for layer in self._cache.layers)
        if same == 0 or (surplus and not rollable):
            self.forget()
            return 0
        if surplus:
            self._cache.crop(-surplus)
            del self._ids[same:]
        return same

    def _empty_cache(self) -> Any:
        from transformers import DynamicCache

        return DynamicCache(config=self._model.config)

    def _synchronise(self) -> None:
        if self._loaded.device.startswith("cuda"):
            import torch

            torch.cuda.synchronize(self._loaded.device)

    def _set_threads(self, threads: int) -> None:
        import torch

        if threads and torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
