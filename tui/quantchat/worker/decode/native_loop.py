"""The native loop: prefill in chunks, then one decode step per token, with any `Step`."""

from __future__ import annotations

from typing import Any

from quantchat.wire.messages import Sampling
from quantchat.worker.decode.cache_rules import ORDINARY, CacheRules
from quantchat.worker.decode.loop import RunningAnswer, common_prefix
from quantchat.worker.decode.sampling import Sampler
from quantchat.worker.decode.steps import Interrupted, Step, Stopped

CHUNK = 512
"""Prompt tokens in one prefill step: enough to make unpacking a weight worthwhile, few enough to
show progress. If the user stops an answer, that takes effect between two steps; on a CPU also
between two blocks of the model.

The size is fixed and not adapted to the speed, because the places where a prompt is cut affect the
rounding: otherwise greedy answers would vary with the load of the machine."""


PREPARED_TOKENS = 2048
"""Most tokens of an answer for which `Step.prepare` is called before it begins. Without this limit
short answers would also allocate memory for the longest answer. Beyond it, the cache grows while
tokens are decoded."""


class NativeLoop:
    """Decodes with `step`, whose token ids must be on `device` (a `torch.device`)."""

    def __init__(self, step: Step, device: Any, rules: CacheRules = ORDINARY) -> None:
        self._step = step
        self._rules = rules
        self._device = device
        self._ids: list[int] = []
        """The cached tokens, in order."""

    # ------------------------------------------------------------ the interface of a Loop

    def rewind(self, prompt: list[int]) -> int:
        """Keep only the cached tokens with which `prompt` begins; return their number."""
        common = common_prefix(self._ids, prompt)
        kept = self._rules.can_reuse(len(self._ids), common, len(prompt))
        self._keep(common if kept else 0)
        return len(self._ids)

    def answer(self, prompt: list[int], answer: RunningAnswer) -> str:
        """Answer `prompt`, whose beginning is cached; return why the answer ended."""
        self._step.prepare(len(prompt) + 1, len(prompt) + min(answer.max_tokens, PREPARED_TOKENS))
        logits = self._prefill(prompt[len(self._ids) :], answer)
        if logits is None:
            return "stop"
        sampler = Sampler(answer.sampling, self._device, prompt)
        reader = self._token_reader()
        token = sampler.choose(logits)
        for count in range(1, answer.max_tokens + 1):
            more = count < answer.max_tokens
            # Let the device compute the next token while this token is copied to the host. Do not
            # do that for the first token: TTFT would include the launch of a second step.
            ahead = more and reader.is_async and count > 1
            reader.begin(token)
            if ahead:
                token = sampler.choose(self._next(token))
            token_id = reader.read()  # the only point in a step that waits for the device
            if ahead:
                self._ids.append(token_id)
            if not answer.send(token_id):
                return "eos"
            if answer.stopped:
                return "stop"
            if more and not ahead:
                logits = self._next(token)
                self._ids.append(token_id)
                token = sampler.choose(logits)
            # At the limit of the thoughts, the mark that ends them replaces the chosen token.
            if more and (inserted := answer.inserted) is not None:
                token = sampler.replace(inserted)
        return "length"

    def warm_up(self, prompt: list[int], steps: int) -> None:
        """Decode `steps` tokens after `prompt` without sending them."""
        sampler = Sampler(Sampling(), self._device, prompt)
        for start in range(0, len(prompt), CHUNK):
            logits = self._run(prompt[start : start + CHUNK])
        for _ in range(steps):
            token = sampler.choose(logits)
            logits = self._step.run(token)
            self._ids.append(int(token.item()))

    def forget(self) -> None:
        """Drop the KV cache and free its memory."""
        self._ids = []
        self._step.forget()

    def kv_bytes(self) -> int:
        """Return the bytes allocated for the KV cache."""
        return self._step.kv_bytes()

    def _token_reader(self) -> TokenReader:
        return TokenReader(self._device)

    # ------------------------------------------------------------ steps

    def _next(self, token: Any) -> Any:
        """Append `token`, shape (1, 1), to the cache; return its logits.

        If the token makes the cached keys wrong (LongRoPE), all tokens are computed again in one
        pass.
        """
        if self._rules.invalidated_at(len(self._ids)):
            import torch

            self._step.forget()
            token = torch.cat([torch.tensor([self._ids], device=self._device), token], dim=-1)
        return self._step.run(token)

    def _run(self, ids: list[int], stopped: Stopped | None = None) -> Any:
        import torch

        logits = self._step.run(torch.tensor([ids], device=self._device), stopped)
        self._ids += ids
        return logits

    def _prefill(self, ids: list[int], answer: RunningAnswer) -> Any:
        """Compute `ids` in chunks; return the last token's logits, or None if stopped."""
        logits = None
        cached = len(self._ids)
        # Some caches do not accept chunks, and some become wrong beyond a length: see `CacheRules`.
        size = CHUNK if self._rules.can_append(cached, cached + len(ids)) else len(ids)
        stopped = (lambda: answer.stopped) if self._device.type == "cpu" else None
        for start in range(0, len(ids), size):
            if answer.stopped:
                return None
            chunk = ids[start : start + size]
            try:
                logits = self._run(chunk, stopped)
            except Interrupted as interrupted:
                if not interrupted.cache_intact:
                    self._ids = []
                return None
            self._synchronise()  # without this, a stop would wait for all queued chunks
            answer.prefilled(start + len(chunk), len(ids))
        return logits

    def _keep(self, tokens: int) -> None:
        """Cut the cache to its first `tokens`; empty it if that is not possible."""
        if tokens and (tokens == len(self._ids) or self._step.cut(len(self._ids) - tokens)):
            del self._ids[tokens:]
        else:
            self.forget()

    def _synchronise(self) -> None:
        if self._device.type == "cuda":
            import torch

            torch.cuda.synchronize(self._device)


class TokenReader:
    """Copies the id of a token from the device to the CPU, while a GPU computes the next step."""

    def __init__(self, device: Any) -> None:
        self.is_async = device.type == "cuda"
        self._token: Any = None
        if self.is_async:
            import torch

            self._host = torch.empty((1, 1), dtype=torch.long, pin_memory=True)
            self._copied = torch.cuda.Event()

    def begin(self, token: Any) -> None:
        """Queue the copy of `token`, shape (1, 1), after the step that chooses it."""
        self._token = token
        if self.is_async:
            self._host.copy_(token, non_blocking=True)
            self._copied.record()

    def read(self) -> int:
        """Wait for the copy, but not for work queued after it; return the id."""
        if not self.is_async:
            return int(self._token.item())
        self._copied.synchronize()
        return int(self._host.item())
