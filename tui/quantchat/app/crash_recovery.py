"""Saves unsaved conversations and measurements when they are replaced or quantchat must end."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from quantchat.app.device_watch import DeviceReadings
from quantchat.daemon_thread import disk_timeout, in_daemon_thread, to_daemon_thread, wait_for_disk
from quantchat.errors import UserError
from quantchat.host.screen_log import log_exception

if TYPE_CHECKING:
    from quantchat.measuring.measurement import Measurement
    from quantchat.session.comparison import Comparison
    from quantchat.session.conversation import Conversation
    from quantchat.snapshot.schema import Snapshot

DISK_WAIT_S = 3.0
"""Seconds that the event loop, or a thread that saves, waits for the disk, which may hang."""


async def anything_recovered(folder: Path | None) -> bool:
    """Return whether the snapshots' `folder` holds unsaved work of an earlier run.

    A thread reads the folder, because a network share may hang for ever, and imports the snapshot
    schema, because that takes longer than a frame.
    """

    def found() -> bool:
        from quantchat.snapshot import recovered

        return bool(recovered.recovered_snapshots(folder))

    return await to_daemon_thread(found)


@runtime_checkable
class Recoverable(Protocol):
    """A screen that may hold unsaved work."""

    @property
    def unsaved(self) -> bool:
        """Whether quitting now would lose something."""

    def save_for_recovery(self) -> Path | None:
        """Save the unsaved work for recovery; return the file, None if there is nothing to save.

        Afterwards nothing is unsaved. Raises UserError if the file cannot be written.
        """


class RecoveringApp(Protocol):
    """An app to which a screen that closes can hand over its unsaved work."""

    def save_work_of(self, holder: Recoverable) -> None:
        """Save unsaved work of `holder`. Raises nothing."""


class CrashRecovery:
    """Saves the conversation of `comparison` in `folder`, unless it is saved already.

    `folder` None means the user's default folder. Any thread may call the methods, because the
    event loop may be stuck when quantchat has to end.
    """

    def __init__(self, comparison: Comparison, folder: Path | None) -> None:
        self._comparison = comparison
        self._folder = folder
        self._saved_chat: tuple[Conversation, object] | None = None
        """The last saved conversation, and its `extent` at that time."""
        self._saved_measurement: tuple[Measurement | None, int] = (None, 0)
        """The last saved measurement, and its number of answers at that time."""
        self._writing = threading.Lock()
        self._save: Future[Path] | None = None
        """The future that the last `save` returned."""
        self.measured: DeviceReadings | None = None
        """The last sample of the machine. While quantchat ends, it is used in place of a new
        sample, for which the GPU driver might hang."""

    @property
    def saving(self) -> bool:
        """Whether `save` is still writing."""
        return self._save is not None and not self._save.done()

    def save(self, snapshot: Snapshot, measurement: Measurement | None = None) -> Future[Path]:
        """Begin to save `snapshot`, which was just recorded; return a future of its file.

        A thread writes it, because the disk may be slow or hang. Once it is written, both the
        conversation and `measurement` count as saved. The future may raise UserError.
        """
        from quantchat.snapshot import store

        extent = self._extent(measurement)

        def write() -> Path:
            with self._exclusively():
                path = store.save(snapshot, self._folder)
                self._saved_chat, self._saved_measurement = extent
                return path

        self._save = in_daemon_thread(write, "save")
        return self._save

    def mark_saved(self) -> None:
        """Count the conversation as saved, because it was read from a file."""
        self._saved_chat = self._extent(None)[0]

    def wait_for_save(self) -> Path | None:
        """Wait for a running `save` before quantchat ends; return its file, None without one.

        Raises UserError if it fails or takes longer than `DISK_WAIT_S`.
        """
        if self._save is None or self._save.done():
            return None
        return wait_for_disk(self._save, DISK_WAIT_S)

    @contextlib.contextmanager
    def _exclusively(self) -> Iterator[None]:
        """Wait until no other thread writes, then keep others from writing within this context.

        Raises UserError after `DISK_WAIT_S`.
        """
        if not self._writing.acquire(timeout=DISK_WAIT_S):
            raise disk_timeout(DISK_WAIT_S)
        try:
            yield
        finally:
            self._writing.release()

    def _extent(
        self, measurement: Measurement | None
    ) -> tuple[tuple[Conversation, object], tuple[Measurement | None, int]]:
        conversation = self._comparison.conversation
        count = len(measurement.measured) if measurement else 0
        return (conversation, conversation.extent), (measurement, count)

    def unsaved(self, measurement: Measurement | None = None) -> bool:
        """Whether the conversation or `measurement` has something that is not saved."""
        chat, measured = self._extent(measurement)
        return bool(chat[0].turns and chat != self._saved_chat) or bool(
            measured[1] and measured != self._saved_measurement
        )

    def save_for_recovery(self, measurement: Measurement | None = None) -> Path | None:
        """Save unsaved work for recovery, with the answers of `measurement` so far.

        See `Recoverable.save_for_recovery`.
        """
        try:
            with self._exclusively():
                if not self.unsaved(measurement):
                    return None
                extent = self._extent(measurement)
                path = self._write(measurement)
                self._saved_chat, self._saved_measurement = extent
                return path
        except UserError:
            log_exception()
            raise
        except Exception as error:  # quantchat must be able to end
            log_exception()
            raise UserError(f"{type(error).__name__}: {error}") from error

    def _write(self, measurement: Measurement | None) -> Path:
        from quantchat.app.last_sample_sampler import LastSampleSampler
        from quantchat.measuring.record import record_measurement
        from quantchat.session.recorder import record
        from quantchat.snapshot import recovered

        last = LastSampleSampler(self.measured)
        if measurement is None:
            return recovered.save(record(self._comparison, last), self._folder)
        return recovered.save(record_measurement(self._comparison, last, measurement), self._folder)
