"""quantchat's own loop: prefill in chunks, then one step a token, over any kind of step."""

from __future__ import annotations

from typing import Any

from quantchat.wire.messages import Sampling
from quantchat.worker.decode.cache_rules import ORDINARY, CacheRules
from quantchat.worker.decode.loop import Turn, common_prefix
from quantchat.worker.decode.sampling import Sampler
from quantchat.worker.decode.steps import Interrupted, Step, Stopped

CHUNK = 512
"""Prompt tokens in one prefill step: long enough to unfold a weight for, short enough to tell how
far it is. A stop is answered between two steps, and on a CPU between two blocks of the model.

Fixed, and not fitted to the speed: how a prompt is cut decides its rounding, so a greedy answer
would else differ from run to run with the load of the machine.
"""


AHEAD = 2048
"""Most tokens of an answer that a step is made ready for before it begins. Room for all that an
answer may have would be held by each short one too; beyond this, it grows as tokens come."""


class NativeLoop:
    """Decodes with `step`, whose tokens lie on `device` (a `torch.device`)."""

    def __init__(self, step: Step, device: Any, rules: CacheRules = ORDINARY) -> None:
        self._step = step
        self._rules = rules
        self._device = device
        self._ids: list[int] = []
        """Tokens whose keys and values are in the cache, in order."""

    # ------------------------------------------------------------ what the decoder asks

    def rewind(self, prompt: list[int]) -> int:
        """Keep of the cache what `prompt` begins with; return how many tokens that is."""
        common = common_prefix(self._ids, prompt)
        kept = self._rules.keeps(len(self._ids), common, len(prompt))
        self._keep(common if kept else 0)
        return len(self._ids)

    def answer(self, prompt: list[int], turn: Turn) -> str:
        """Answer `prompt` after what is cached of it; return why it ended."""
        self._step.prepare(len(prompt) + 1, len(prompt) + min(turn.most, AHEAD))
        logits = self._prefill(prompt[len(self._ids) :], turn)
        if logits is None:
            return "stop"
        sampler = Sampler(turn.sampling, self._device, prompt)
        reader = self._reader()
        token = sampler.choose(logits)
        for count in range(1, turn.most + 1):
            more = count < turn.most
            # The device computes the next one while this one travels; but not while the first one
            # does, or TTFT would hold the launching of a second step.
            ahead = more and reader.lags and count > 1
            reader.begin(token)
            if ahead:
                token = sampler.choose(self._next(token))
            token_id = reader.read()  # the one synchronisation of a step
            if ahead:
                self._ids.append(token_id)
            if not turn.heard(token_id):
                return "eos"
            if turn.stopped:
                return "stop"
            if more and not ahead:
                logits = self._next(token)
                self._ids.append(token_id)
                token = sampler.choose(logits)
        return "length"

    def warm_up(self, prompt: list[int], steps: int) -> None:
        """Answer `prompt` with `steps` tokens that nobody hears."""
        sampler = Sampler(Sampling(), self._device, prompt)
        for start in range(0, len(prompt), CHUNK):
            logits = self._run(prompt[start : start + CHUNK])
        for _ in range(steps):
            token = sampler.choose(logits)
            logits = self._step.run(token)
            self._ids.append(int(token.item()))

    def forget(self) -> None:
        """Drop the KV cache and give its memory back."""
        self._ids = []
        self._step.forget()

    def kv_bytes(self) -> int:
        """Bytes allocated for the KV cache."""
        return self._step.kv_bytes()

    def _reader(self) -> Reader:
        return Reader(self._device)

    # ------------------------------------------------------------ steps

    def _next(self, token: Any) -> Any:
        """Append `token`, shape (1, 1), after what is cached; return its logits."""
        if self._rules.crosses(len(self._ids)):
            import torch

            self._step.forget()
            token = torch.cat([torch.tensor([self._ids], device=self._device), token], dim=-1)
        return self._step.run(token)

    def _run(self, ids: list[int], stopped: Stopped | None = None) -> Any:
        import torch

        logits = self._step.run(torch.tensor([ids], device=self._device), stopped)
        self._ids += ids
        return logits

    def _prefill(self, ids: list[int], turn: Turn) -> Any:
        """Compute `ids` in chunks; the last token's logits, or None where it was stopped."""
        logits = None
        cached = len(self._ids)
        size = CHUNK if self._rules.continues(cached, cached + len(ids)) else len(ids)
        stopped = (lambda: turn.stopped) if self._device.type == "cpu" else None
        for start in range(0, len(ids), size):
            if turn.stopped:
                return None
            chunk = ids[start : start + size]
            try:
                logits = self._run(chunk, stopped)
            except Interrupted as interrupted:
                if not interrupted.kept:
                    self._ids = []
                return None
            self._synchronise()  # lest a stop wait for all the chunks that are queued
            turn.prefilled(start + len(chunk), len(ids))
        return logits

    def _keep(self, tokens: int) -> None:
        """Take off the cache what comes after `tokens`; all of it where that cannot be done."""
        if tokens and (tokens == len(self._ids) or self._step.cut(len(self._ids) - tokens)):
            del self._ids[tokens:]
        else:
            self.forget()

    def _synchronise(self) -> None:
        if self._device.type == "cuda":
            import torch

            torch.cuda.synchronize(self._device)


class Reader:
    """Brings a token's id to the host; on a GPU while the device goes on with the next step."""

    def __init__(self, device: Any) -> None:
        self.lags = device.type == "cuda"
        self._token: Any = None
        if self.lags:
            import torch

            self._host = torch.empty((1, 1), dtype=torch.long, pin_memory=True)
            self._copied = torch.cuda.Event()

    def begin(self, token: Any) -> None:
        """Queue the copy of `token`, shape (1, 1), behind the step that chooses it."""
        self._token = token
        if self.lags:
            self._host.copy_(token, non_blocking=True)
            self._copied.record()

    def read(self) -> int:
        """Wait for the copy, and for nothing that was queued after it."""
        if not self.lags:
            return int(self._token.item())
        self._copied.synchronize()
        return int(self._host.item())
