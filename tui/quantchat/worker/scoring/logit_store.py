"""A model's forecasts kept in a file, for another model's to be compared with.

Kept is each logit less the largest of its position, in half precision. That is finest where it
matters: what is kept is off by at most 2^-11 of that distance, and the likeliest tokens lie next to
0. Read back they are normalised again, so what is read is a distribution, and no divergence from it
is below 0 by more than rounding. (llama.cpp keeps 16-bit integers over a range of 16 nats, which
takes the same room and puts what is less likely at the range's end.)
"""

from __future__ import annotations

from io import BufferedIOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantchat.worker.failures import Refused

if TYPE_CHECKING:
    from typing_extensions import Self

BYTES = 2
"""Of each number kept."""


class _Kept:
    """A file that is closed at the end of a `with`."""

    def __init__(self, file: BufferedIOBase) -> None:
        self._file = file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


class LogitWriter(_Kept):
    """Writes forecasts to a new file."""

    def __init__(self, file: Path) -> None:
        super().__init__(file.open("wb"))

    def write(self, logits: Any) -> Any:
        """Keep `logits`, rows of float32; return the log-probabilities that will be read."""
        kept = (logits - logits.amax(dim=-1, keepdim=True)).half()
        self._file.write(kept.cpu().contiguous().numpy().data)
        return kept.float().log_softmax(dim=-1)


class LogitReader(_Kept):
    """Reads forecasts in the order they were written."""

    def __init__(self, file: Path, positions: int, vocabulary: int) -> None:
        """Raises Refused where the file holds other than so many rows of that length."""
        if file.stat().st_size != positions * vocabulary * BYTES:
            raise Refused(
                "unsupported",
                f"its vocabulary of {vocabulary} tokens is not that of what it is compared with",
                "compare variants of one model",
            )
        super().__init__(file.open("rb"))
        self._vocabulary = vocabulary

    def read(self, rows: int, device: Any) -> Any:
        """The log-probabilities of the next `rows` positions, float32."""
        import torch

        block = bytearray(rows * self._vocabulary * BYTES)
        if self._file.readinto(block) != len(block):
            raise Refused("internal", "what was kept of the reference is cut short")
        kept = torch.frombuffer(block, dtype=torch.float16).view(rows, self._vocabulary)
        return kept.to(device).float().log_softmax(dim=-1)


def divergence(p_log: Any, q_log: Any) -> Any:
    """KL(p ‖ q) of each row in nats, from log-probabilities; a p of 0 counts nothing."""
    import torch

    p = p_log.exp()
    return torch.where(p > 0, p * (p_log - q_log), 0.0).sum(dim=-1, dtype=torch.float64)
