"""The interface of a decode loop, and the answer that it decodes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from quantchat.wire.messages import Prefilled, Sampling
from quantchat.worker.outbox import Outbox
from quantchat.worker.thinking_limit import ThinkingLimit


@dataclass(frozen=True)
class RunningAnswer:
    """One answer while it is decoded: its settings, where to send its tokens, when to stop.

    (`session.conversation.Answer` is the same answer in the main process.)
    """

    number: int
    """Number of the turn, as in the request."""
    sampling: Sampling
    max_tokens: int
    """Longest answer in tokens, 1 or more."""
    end_tokens: frozenset[int]
    """Ids that end the answer and are not part of it; empty with `ignore_eos`."""
    outbox: Outbox
    asked_to_stop: Callable[[int], bool]
    """Called with the number of a turn; returns whether the user asked to stop that turn."""
    thinking: ThinkingLimit | None = None
    """Limits the thoughts of the answer; None if they have no limit."""

    @property
    def stopped(self) -> bool:
        """Whether the user asked to stop this answer. Reading this is cheap."""
        return self.asked_to_stop(self.number)

    def prefilled(self, done: int, total: int) -> None:
        """Report that `done` of `total` prompt tokens have been computed."""
        self.outbox.send(Prefilled(self.number, done, total, time.perf_counter_ns()))

    def send(self, token: int, known_ns: int = 0) -> bool:
        """Send `token` to the outbox; return False instead if it ends the answer.

        `known_ns` is the time at which the CPU had the token (`time.perf_counter_ns`); 0: now.
        """
        now = known_ns or time.perf_counter_ns()
        if token in self.end_tokens:
            return False
        self.outbox.token(token, now)
        if self.thinking is not None:
            self.thinking.add(token)
        return True

    @property
    def inserted(self) -> int | None:
        """The token to use instead of the sampled token; None: use the sampled token."""
        return self.thinking.next_token if self.thinking is not None else None


class Loop(Protocol):
    """Decodes the answer to a prompt, and keeps the KV cache of both for the next turn."""

    def rewind(self, prompt: list[int]) -> int:
        """Keep only the cached tokens with which `prompt` begins; return their number."""

    def answer(self, prompt: list[int], answer: RunningAnswer) -> str:
        """Answer `prompt`, after `rewind(prompt)`; return why the answer ended.

        The reason is `eos`, `stop` (the user asked to stop) or `length` (`answer.max_tokens` tokens
        were decoded).
        """

    def warm_up(self, prompt: list[int], steps: int) -> None:
        """Decode `steps` tokens after `prompt` without sending them: first calls are slow."""

    def forget(self) -> None:
        """Drop the KV cache and free its memory."""

    def kv_bytes(self) -> int:
        """Return the bytes of the KV cache. Called from another thread too."""


def common_prefix(cached: list[int], prompt: list[int]) -> int:
    """Return how many tokens at the beginning of `cached` and `prompt` are equal.

    The last prompt token does not count: it must be computed, because its logits are needed.
    """
    same = 0
    for old, new in zip(cached, prompt[:-1], strict=False):
        if old != new:
            break
        same += 1
    return same
