"""Stores the logits of one model in a file, so that other models can be compared with it.

For each position and each token of the vocabulary the file has logit - max(logit) as float16. The
rounding error is at most 2^-11 of this difference, so it is smallest for the likeliest tokens,
whose difference is near 0. When the logits are read, softmax is applied again: the result is a
probability distribution, so a KL divergence from it is never negative, except by rounding.
(llama.cpp stores 16-bit integers over a range of 16 nats. These files have the same size, but
smaller values are raised to the lower end of the range.)
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
    """A file that is closed at the end of a `with` block."""

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
        """Store the logits of the next positions, (positions, vocabulary), float32.

        Return the log-probabilities that `LogitReader.read` will return for these positions.
        """
        stored = (logits - logits.amax(dim=-1, keepdim=True)).half()
        self._file.write(stored.cpu().contiguous().numpy().data)
        return stored.float().log_softmax(dim=-1)


class LogitReader(_LogitFile):
    """Reads logits in the order in which they were written."""

    def __init__(self, file: Path, positions: int, vocabulary: int) -> None:
        """Open `file`. Raises Refused unless it has `positions` rows of `vocabulary` logits."""
        if file.stat().st_size != positions * vocabulary * BYTES:
            raise Refused(
                "unsupported",
                f"the vocabulary of {vocabulary} tokens differs from that of the other model",
                "compare variants of one model",
            )
        super().__init__(file.open("rb"))
        self._vocabulary = vocabulary

    def read(self, rows: int, device: Any) -> Any:
        """Return the log-probabilities of the next positions, (rows, vocabulary), as float32."""
        import torch

        block = bytearray(rows * self._vocabulary * BYTES)
        if self._file.readinto(block) != len(block):
            raise Refused("internal", "the stored logits of the reference are cut short")
        stored = torch.frombuffer(block, dtype=torch.float16).view(rows, self._vocabulary)
        return stored.to(device).float().log_softmax(dim=-1)


def divergence(p_log: Any, q_log: Any) -> Any:
    """Return KL(p ‖ q) of each row in nats, from the log-probabilities of p and q.

    Terms with p = 0 count as 0.
    """
    import torch

    p = p_log.exp()
    return torch.where(p > 0, p * (p_log - q_log), 0.0).sum(dim=-1, dtype=torch.float64)
