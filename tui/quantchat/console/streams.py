"""Standard streams that let no control character through.

They do not fail if the reader of the output has ended or, for messages, if the disk is full.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import traceback
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, TextIO, cast

from quantchat.errors import UserError
from quantchat.text import neutralise
from quantchat.wire.redaction import redacted


def open_closed_streams() -> None:
    """Open /dev/null in place of closed standard streams; some daemons close them.

    Otherwise Python's stream is None, and the next file that is opened gets the free descriptor 0,
    1 or 2, so that printed text ends up in that file.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)  # gets the lowest free number: `descriptor`
            os.set_inheritable(nowhere, True)
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            stream = open(descriptor, mode, encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


class _FailSafeStream:
    """A stream that drops text that cannot be written.

    If the terminal is gone or the reader of a pipe has ended (`| head`), text is dropped. So a
    measurement continues and is saved, and the exit status says how the measurement ended. On a
    full disk, messages are dropped too. But a stream of `results` raises UserError on a full disk,
    because the user could take a part of the results for all of them.
    """

    def __init__(self, stream: TextIO, *, results: bool) -> None:
        self._stream = stream
        self._results = results
        self._full: UserError | None = None
        """The error of a full disk. It is raised again at each further write, because click may
        catch and ignore the first one."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._errors_handled():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._errors_handled():
            self._stream.flush()

    @contextlib.contextmanager
    def _errors_handled(self) -> Iterator[None]:
        if self._full:
            raise self._full
        try:
            yield
        except OSError as error:
            if error.errno == errno.EIO:  # the terminal is gone
                return
            _discard_buffer(self._stream)
            if self._results and error.errno != errno.EPIPE:
                self._full = UserError(
                    f"cannot be written: {error.strerror or error}",
                    where="standard output",
                    hint="free disk space, or redirect the output elsewhere",
                )
                raise self._full from error


def _discard_buffer(stream: TextIO) -> None:
    """Redirect `stream` to /dev/null.

    Otherwise Python would try to write its buffer again at exit, and fail again.
    """
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, stream.fileno())
        finally:
            os.close(nowhere)


class NeutralStream:
    """A text stream that replaces control characters by visible marks, whichever code prints them.

    It has no attribute `buffer`, with which a library could bypass this stream. Consoles write
    their styles to `raw`, the underlying stream.
    """

    def __init__(self, raw: TextIO) -> None:
        self.raw = raw

    def write(self, text: str) -> int:
        """Write `text` with visible marks for control characters."""
        self.raw.write(neutralise(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each of `lines`."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush the underlying stream."""
        self.raw.flush()

    def fileno(self) -> int:
        """Return the underlying descriptor. Raises OSError if there is none."""
        return self.raw.fileno()

    def isatty(self) -> bool:
        """Return whether the underlying stream is a terminal."""
        return self.raw.isatty()

    @property
    def encoding(self) -> str:
        """Encoding of the underlying stream."""
        return self.raw.encoding

    @property
    def errors(self) -> str | None:
        """Error handling of the underlying stream."""
        return self.raw.errors


@contextlib.contextmanager
def neutral_output() -> Iterator[None]:
    """Let no control character through to stdout and stderr within this context.

    This is only the last guard: code that prints text from models, files or servers must neutralise
    the text itself. Tracebacks of unexpected exceptions are neutralised even after this context.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (
        cast(
            "TextIO",
            NeutralStream(cast("TextIO", _FailSafeStream(stream, results=stream is before[0]))),
        )
        for stream in before
    )
    sys.excepthook = _print_traceback
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _print_traceback(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    text = redacted("".join(traceback.format_exception(kind, error, trace)))
    sys.stderr.write(neutralise(text))
