"""What is kept of a conversation that nobody saved when the program has to leave."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from quantchat.app.device_watch import Measured
from quantchat.host.screen_log import log_exception

if TYPE_CHECKING:
    from quantchat.bench.comparison import Comparison
    from quantchat.bench.conversation import Conversation
    from quantchat.bench.measurement import Measurement


@runtime_checkable
class Keeps(Protocol):
    """A screen that may hold what nobody saved."""

    @property
    def unsaved(self) -> bool:
        """Whether leaving now would lose something."""

    def keep(self) -> Path | None:
        """Save it, and return the file; None where there is nothing, or it could not be written.

        Raises nothing: the end must go on. Called a second time it has nothing left to keep.
        """


class Keeper:
    """Keeps `comparison`'s conversation in `folder` (None: the user's own) unless it is saved.

    May be called from any thread: the loop may be stuck when the program has to leave.
    """

    def __init__(self, comparison: Comparison, folder: Path | None) -> None:
        self._comparison = comparison
        self._folder = folder
        self._saved: tuple[Conversation, object] | None = None
        self._at_it = threading.Lock()
        self.measured: Measured | None = None
        """The machine as it was last seen: at the end no driver is asked, which may hang."""

    def note_saved(self) -> None:
        """All that was said until now is saved."""
        conversation = self._comparison.conversation
        self._saved = conversation, conversation.extent

    def unsaved(self, measurement: Measurement | None = None) -> bool:
        """Whether something was said, or by `measurement` measured, that nobody saved."""
        conversation = self._comparison.conversation
        saved, extent = self._saved or (None, None)
        said = bool(conversation.turns) and not (
            saved is conversation and extent == conversation.extent
        )
        return said or bool(measurement and measurement.measured)

    def keep(self, measurement: Measurement | None = None) -> Path | None:
        """As `Keeps.keep`; what was measured until now goes with it."""
        with self._at_it:
            if not self.unsaved(measurement):
                return None
            self.note_saved()
            try:
                return self._write(measurement)
            except Exception:  # noqa: BLE001 - the end must go on
                log_exception()
                return None

    def _write(self, measurement: Measurement | None) -> Path:
        from quantchat.app.last_measured import LastMeasured
        from quantchat.bench.record import record
        from quantchat.snapshot import recovered

        snapshot = record(self._comparison, LastMeasured(self.measured), measurement)
        return recovered.save(snapshot, self._folder)
