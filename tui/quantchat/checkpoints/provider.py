"""The interface that turns a variant's model into a checkpoint that its engine can load."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from quantchat.profile.model import AnyVariant
from quantchat.wire.messages import Progress


@dataclass(frozen=True)
class PreparedModel:
    """The model that an engine loads: a folder or a Hugging Face id, perhaps with a revision."""

    model: str
    revision: str | None = None
    note: str = ""
    """A note for the user, e.g. that the full-precision model was itself dequantized from Q4_1."""


class CheckpointProvider(Protocol):
    """Interface between a comparison and the builder of checkpoints; tests replace it."""

    async def prepare(
        self, spec: AnyVariant, on_progress: Callable[[Progress], None]
    ) -> PreparedModel:
        """Return the model that the engine of `spec` loads; build a missing checkpoint first.

        A build consists of stages. Two variants that need the same stage at the same time share
        it. Cancelling ends the running stage and its processes, unless another caller waits for
        that stage. The results of finished stages stay in the cache. Raises JobFailed or UserError.
        """
