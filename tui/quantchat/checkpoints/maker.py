"""The maker: turns what a variant names into something an engine can load."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from quantchat.profile.model import AnyVariant
from quantchat.wire.messages import Progress


@dataclass(frozen=True)
class Prepared:
    """What the engine loads: a folder or a Hugging Face id, with its revision if one was named."""

    model: str
    revision: str | None = None
    note: str = ""
    """What the user must know of it, e.g. that the base was itself dequantized from Q4_1."""


class Maker(Protocol):
    """The seam between a comparison and the making of checkpoints."""

    async def prepare(self, spec: AnyVariant, on_progress: Callable[[Progress], None]) -> Prepared:
        """Make what `spec` needs, or find it made. Raises JobFailed or UserError.

        Two variants that need the same stage at once share it. Cancelling ends the stage under
        way with its processes; finished stages are kept.
        """
