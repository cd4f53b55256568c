"""A file of one model's logits, for another model's to be compared with.

The file holds logit - max(logit) of each position as float16. The error is at most 2^-11 of that
distance, so it is smallest for the likeliest tokens, which lie next to 0. Reading normalises the
logits again: the result is a distribution, and no KL divergence from it is negative by more than
rounding. (llama.cpp stores 16-bit integers over a range of 16 nats: as large, but it moves all less
likely tokens to the end of the range.)
"""

from __future__ import annotations

from io import BufferedIOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantchat.worker.failures import Refused

if TYPE_CHECKING:
    from typing_extensions import Self

BYTES = 2
"""Bytes of each stored logit."""


class _LogitFile:
    """A file that is closed at the end of a `with`."""

    def __init__(self, file: BufferedIOBase) -> None:
        self._file = file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


class LogitWriter(_LogitFile):
    """Writes logits to a new file."""

    def __init__(self, file: Path) -> None:
        super().__init__(file.open("wb"))

    def write(self, logits: Any) -> Any:
        """Store `logits`, rows of float32; return the log-probabilities that will be read back."""
        kept = (logits - logits.amax(dim=-1, keepdim=True)).half()
        self._file.write(kept.cpu().contiguous().numpy().data)
        return kept.float().log_softmax(dim=-1)


class LogitReader(_LogitFile):
    """Reads logits in the order they were written."""

    def __init__(self, file: Path, positions: int, vocabulary: int) -> None:
        """Raise Refused unless the file holds `positions` rows of `vocabulary` logits."""
        if file.stat().st_size != positions * vocabulary * BYTES:
            raise Refused(
                "unsupported",
                f"its vocabulary of {vocabulary} tokens is not that of what it is compared with",
                "compare variants of one model",
            )
        super().__init__(file.open("rb"))
        self._vocabulary = vocabulary

    def read(self, rows: int, device: Any) -> Any:
        """Return the log-probabilities of the next `rows` positions, float32."""
        import torch

        block = bytearray(rows * self._vocabulary * BYTES)
        if self._file.readinto(block) != len(block):
            raise Refused("internal", "the stored logits of the reference are cut short")
        kept = torch.frombuffer(block, dtype=torch.float16).view(rows, self._vocabulary)
        return kept.to(device).float().log_softmax(dim=-1)


def divergence(p_log: Any, q_log: Any) -> Any:
    """Return KL(p ‖ q) of each row in nats, from log-probabilities; a p of 0 counts nothing."""
    import torch

    p = p_log.exp()
    return torch.where(p > 0, p * (p_log - q_log), 0.0).sum(dim=-1, dtype=torch.float64)
