"""What is printed past the consoles: neutral, whoever prints it."""

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
    """Put /dev/null in the place of standard streams that are closed, as some daemons have them.

    Python has None there then, and the next file that is opened would get the descriptor: what is
    printed would end up in it.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)  # the lowest that is free: this one
            os.set_inheritable(nowhere, True)
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            stream = open(descriptor, mode, encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


class _Steady:
    """A stream whose other end may go away, or fill up.

    The exit status is that of the work. What nobody reads any more, since the terminal is gone or
    the reader of a pipe has ended (`| head`), is dropped: a measurement goes on without its reader
    and is saved. So is what a full disk does not take of messages. Only `results` that a disk does
    not take are told, by UserError: whoever sent them there would take the part for the whole.
    """

    def __init__(self, stream: TextIO, *, results: bool) -> None:
        self._stream = stream
        self._results = results
        self._full: UserError | None = None
        """Raised again each time: the first one may have been swallowed, as click does."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._while_there():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._while_there():
            self._stream.flush()

    @contextlib.contextmanager
    def _while_there(self) -> Iterator[None]:
        if self._full:
            raise self._full
        try:
            yield
        except OSError as error:
            if error.errno == errno.EIO:  # a terminal's, which nothing else is written to
                return
            _let_go(self._stream)
            if self._results and error.errno != errno.EPIPE:
                self._full = UserError(
                    f"cannot be written: {error.strerror or error}",
                    where="the output",
                    hint="make room there, or send it elsewhere",
                )
                raise self._full from error


def _let_go(stream: TextIO) -> None:
    """Send what `stream` still holds back nowhere: at exit Python would fail on it once more."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, stream.fileno())
        finally:
            os.close(nowhere)


class NeutralStream:
    """A text stream that marks control characters: of a warning, a log line, a library's print.

    It has no `buffer`, by which a library could get past it. `raw` is for who writes styles.
    """

    def __init__(self, raw: TextIO) -> None:
        self.raw = raw

    def write(self, text: str) -> int:
        """Write `text` with its controls marked."""
        self.raw.write(neutralise(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each of `lines`."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Pass on what is held back."""
        self.raw.flush()

    def fileno(self) -> int:
        """The descriptor below. Raises OSError where there is none."""
        return self.raw.fileno()

    def isatty(self) -> bool:
        """Whether it ends in a terminal."""
        return self.raw.isatty()

    @property
    def encoding(self) -> str:
        """As of the stream below."""
        return self.raw.encoding

    @property
    def errors(self) -> str | None:
        """As of the stream below."""
        return self.raw.errors


@contextlib.contextmanager
def neutral_output() -> Iterator[None]:
    """Within this context stdout and stderr let no control character through.

    Who prints text from outside puts in marks where they are laid out; this is the last guard. A
    traceback of what nobody foresaw is neutral too, also after the context.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (
        cast("TextIO", NeutralStream(cast("TextIO", _Steady(stream, results=stream is before[0]))))
        for stream in before
    )
    sys.excepthook = _tell
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    said = redacted("".join(traceback.format_exception(kind, error, trace)))
    sys.stderr.write(neutralise(said))
