"""One answer while it is being decoded: what is asked, whom to tell, and whether to go on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from quantchat.wire.messages import Prefilled, Sampling
from quantchat.worker.outbox import Outbox


@dataclass(frozen=True)
class Turn:
    """What a loop needs of a request. `most` is the longest answer in tokens, 1 or more."""

    number: int
    sampling: Sampling
    most: int
    end_tokens: frozenset[int]
    """Ids that end the answer and are not part of it; empty where they shall not."""
    outbox: Outbox
    asked_to_stop: Callable[[int], bool]

    @property
    def stopped(self) -> bool:
        """Whether to stop before the next token. Cheap."""
        return self.asked_to_stop(self.number)

    def prefilled(self, done: int, total: int) -> None:
        """Tell that `done` of `total` prompt tokens that must be computed are."""
        self.outbox.send(Prefilled(self.number, done, total, time.perf_counter_ns()))

    def heard(self, token: int) -> bool:
        """Pass on a token that is known now; False where it ends the answer instead."""
        now = time.perf_counter_ns()
        if token in self.end_tokens:
            return False
        self.outbox.token(token, now)
        return True
