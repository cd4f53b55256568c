"""What is kept of a conversation nobody saved, when it is replaced or the program must leave."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from quantchat.app.device_watch import Measured
from quantchat.errors import UserError
from quantchat.host.screen_log import log_exception

if TYPE_CHECKING:
    from quantchat.features.measure.measurement import Measurement
    from quantchat.session.comparison import Comparison
    from quantchat.session.conversation import Conversation

PATIENCE_S = 3.0
"""How long a second thread waits for the one that writes: that may hang with its disk."""


@runtime_checkable
class Recoverable(Protocol):
    """A screen that may hold what nobody saved."""

    @property
    def unsaved(self) -> bool:
        """Whether leaving now would lose something."""

    def keep(self) -> Path | None:
        """Save it, and return the file; None where there is nothing.

        Raises UserError where it cannot be written. Once it is, there is nothing left to keep.
        """


class CrashRecovery:
    """Keeps `comparison`'s conversation in `folder` (None: the user's own) unless it is saved.

    May be called from any thread: the loop may be stuck when the program has to leave.
    """

    def __init__(self, comparison: Comparison, folder: Path | None) -> None:
        self._comparison = comparison
        self._folder = folder
        self._said: tuple[Conversation, object] | None = None
        """The conversation, and how far it had come, when it was last saved."""
        self._done: tuple[Measurement | None, int] = (None, 0)
        """The measurement, and how many answers it had, when it was last saved."""
        self._writing = threading.Lock()
        self.measured: Measured | None = None
        """The machine as it was last seen: at the end no driver is asked, which may hang."""

    @contextlib.contextmanager
    def saving(self, measurement: Measurement | None = None) -> Iterator[None]:
        """Save within this context what was said and measured; nothing else keeps it meanwhile.

        Once the context is left without an exception, all of it counts as saved.
        """
        with self._writing:
            extent = self._extent(measurement)
            yield
            self._said, self._done = extent

    def _extent(
        self, measurement: Measurement | None
    ) -> tuple[tuple[Conversation, object], tuple[Measurement | None, int]]:
        conversation = self._comparison.conversation
        count = len(measurement.measured) if measurement else 0
        return (conversation, conversation.extent), (measurement, count)

    def unsaved(self, measurement: Measurement | None = None) -> bool:
        """Whether something was said, or by `measurement` measured, that nobody saved."""
        said, measured = self._extent(measurement)
        return bool(said[0].turns and said != self._said) or bool(
            measured[1] and measured != self._done
        )

    def keep(self, measurement: Measurement | None = None) -> Path | None:
        """As `Recoverable.keep`; what was measured until now goes with it."""
        if not self._writing.acquire(timeout=PATIENCE_S):
            raise UserError("it is being written, and the disk does not answer")
        try:
            if not self.unsaved(measurement):
                return None
            extent = self._extent(measurement)
            path = self._write(measurement)
            self._said, self._done = extent
            return path
        except UserError:
            log_exception()
            raise
        except Exception as error:  # whatever it was, the end must go on
            log_exception()
            raise UserError(f"{type(error).__name__}: {error}") from error
        finally:
            self._writing.release()

    def _write(self, measurement: Measurement | None) -> Path:
        from quantchat.app.final_sampler import FinalSampler
        from quantchat.features.measure.record import record_measurement
        from quantchat.session.recorder import record
        from quantchat.snapshot import recovered

        last = FinalSampler(self.measured)
        if measurement is None:
            return recovered.save(record(self._comparison, last), self._folder)
        return recovered.save(record_measurement(self._comparison, last, measurement), self._folder)
