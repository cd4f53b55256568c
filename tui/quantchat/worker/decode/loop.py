"""What the decoder asks of a decode loop, whichever it is; and the tokens a loop has cached."""

from __future__ import annotations

from typing import Protocol

from quantchat.worker.decode.turn import Turn


class Loop(Protocol):
    """Turns a prompt into an answer, and keeps the KV cache of both for the next turn."""

    def rewind(self, prompt: list[int]) -> int:
        """Keep of the cache what `prompt` begins with; return how many tokens that is."""

    def answer(self, prompt: list[int], turn: Turn) -> str:
        """Answer `prompt`, of which `rewind` kept the beginning; return why it ended.

        `eos`, `stop` (asked for) or `length` (`turn.most` tokens were said).
        """

    def warm_up(self, prompt: list[int], steps: int) -> None:
        """Answer `prompt` with `steps` tokens that nobody hears, so that first calls are over."""

    def forget(self) -> None:
        """Drop the KV cache and give its memory back."""

    def kv_bytes(self) -> int:
        """Bytes that the KV cache holds now. Asked from another thread too."""


def common_prefix(cached: list[int], prompt: list[int]) -> int:
    """How many tokens of `cached` begin `prompt`.

    At least one prompt token is left to compute, since its logits are needed.
    """
    same = 0
    for old, new in zip(cached, prompt[:-1], strict=False):
        if old != new:
            break
        same += 1
    return same
