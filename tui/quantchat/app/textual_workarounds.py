"""Workarounds for Textual 8.2.8, each with its reason and when it can be removed.

Review them when the Textual version in pyproject.toml changes.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import replace
from functools import _lru_cache_wrapper, lru_cache, partial
from typing import Any, cast

from rich import _wrap
from rich.console import RenderableType
from rich.segment import Segment
from textual import _ansi_sequences
from textual._styles_cache import StylesCache
from textual.app import App
from textual.color import Color
from textual.content import Content
from textual.driver import Driver
from textual.drivers.linux_driver import LinuxDriver
from textual.events import Key
from textual.filter import LineFilter
from textual.geometry import Size
from textual.keys import Keys
from textual.screen import Screen
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import Input, TextArea

from quantchat.app.cell_widths import chop_cells, patch_rich, with_counted_width
from quantchat.app.terminal_output import GIVE_UP_S, TerminalOutput
from quantchat.text import neutralise


def map_alt_enter() -> None:
    """Map ESC CR to Ctrl+J, so that Alt+Enter starts a new line instead of sending.

    Terminals without the kitty keyboard protocol send ESC CR for Alt+Enter, and many are
    configured to send it for Shift+Enter. Textual's parser drops the Alt of unknown sequences.
    Remove this when `_xterm_parser` reports `alt+enter`.
    """
    sequences = cast("MutableMapping[str, Any]", _ansi_sequences.ANSI_SEQUENCES_KEYS)
    sequences["\x1b\r"] = (Keys.ControlJ,)


XTERM_SHIFT_ENTER = "shift+\r"
"""Textual's name for xterm's `CSI 27;2;13~`, which tmux sends with `extended-keys on`. Remove this
when the parser calls it `shift+enter`, as it does for kitty's `CSI 13;2u`."""


def identify_bindings(app: App[Any]) -> None:
    """Set the id of each binding of `app` that has none to its action: a keymap needs ids.

    Remove this when Textual's own bindings, for quitting and the palette, have ids.
    """
    for key, bindings in app._bindings.key_to_bindings.items():
        app._bindings.key_to_bindings[key] = [
            one if one.id else replace(one, id=one.action) for one in bindings
        ]


class ControlGuard(LineFilter):
    """Removes control characters from each drawn line: the last guard, after `neutralise`.

    Textual passes them on, so that an ESC from a model could reach the terminal through any
    widget. They are removed without a visible mark, because a mark would be wider than the layout
    expects. The addresses of links, which Textual would send as OSC 8, are removed too. Remove
    this class when Textual strips control characters itself.
    """

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """Return `segments` without control characters; nearly always the same list object."""
        if all(map(_harmless, segments)):
            return segments
        return [
            Segment(
                "".join(c for c in text if neutralise(c) == c),
                style.update_link(None) if style and style.link else style,
                control,
            )
            for text, style, control in segments
        ]


def _harmless(segment: Segment) -> bool:
    linked = segment.style is not None and segment.style.link
    return not linked and neutralise(segment.text) == segment.text


def write_to_terminal(app: App[Any]) -> Callable[[str], None]:
    """Return a function that writes an escape sequence to the terminal of `app` between frames.

    `App.copy_to_clipboard` uses the same driver, but does not wrap OSC 52 for tmux and GNU screen.
    Remove this when it does.
    """

    def write(sequence: str) -> None:
        driver = app._driver
        if driver is not None:
            driver.write(sequence)

    return write


def edit_in_order() -> None:
    """Make editing keys and typed characters take effect in the order in which they were pressed.

    A text box inserts characters at once, but passes other keys up to the app, which runs their
    binding later. If keys arrive fast (slow line, busy machine), later characters are inserted
    before an earlier editing key acts. Remove this when widgets run their own bindings.
    """
    for kind in (TextArea, Input):
        if not getattr(kind._on_key, "in_order", False):
            kind._on_key = _in_order(kind._on_key)  # type: ignore[method-assign,assignment]


def _in_order(original: Callable[[Any, Key], Awaitable[None]]) -> Callable[[Any, Key], Any]:
    async def on_key(widget: Widget, event: Key) -> None:
        if not event.is_printable:
            bindings = widget._bindings.copy()
            bindings.apply_keymap(widget.app._keymap)
            for binding in bindings.key_to_bindings.get(event.key, ()):
                if await widget.app.run_action(binding.action, widget):
                    event.stop()
                    event.prevent_default()
                    return
        await original(widget, event)

    on_key.in_order = True  # type: ignore[attr-defined]
    return on_key


def free_lines_of_removed_widgets() -> None:
    """Free the cached lines of removed widgets.

    `StylesCache.get_inner_outer` has an LRU cache whose key includes the StylesCache of the widget
    and with it all its drawn lines. 1024 of them stay alive long after their widgets. Remove this
    when the key holds only the colours.
    """
    cached = StylesCache.get_inner_outer
    if isinstance(cached, _lru_cache_wrapper):
        colours = lru_cache(1024)(partial(cached.__wrapped__, None))
        StylesCache.get_inner_outer = lambda self, *pair: colours(*pair)  # type: ignore[assignment]


_render_style = Strip.render_style.__func__  # type: ignore[attr-defined]


def draw_each_script() -> None:
    """Draw text of every script completely, without overwriting the next column, on any terminal.

    For vowel signs and joined emoji, Rich counts fewer cells than many terminals use, so that the
    text overwrites the next column. Textual, when it strips the blanks at the end of a line
    (`Content.rstrip_end`), counts characters instead of cells: a line of combining marks becomes
    too short, and the compositor does not draw lines of a wrong length. So this function makes both
    count cells with `cell_widths`. Where terminals may disagree, escape sequences put the cursor
    where the count says. Remove this when both measure as the terminal does (mode 2027).
    """
    patch_rich()
    _wrap.chop_cells = chop_cells  # type: ignore[attr-defined]
    Content.rstrip_end = _rstrip_end  # type: ignore[method-assign,assignment]
    Strip.render_style = classmethod(_rendered_with_counted_width)  # type: ignore[assignment,method-assign]


def _rendered_with_counted_width(
    kind: type[Strip], style: Any, text: str, color_system: Any
) -> str:
    return cast("str", _render_style(kind, style, with_counted_width(text), color_system))


def _rstrip_end(content: Content, size: int) -> Content:
    excess = content.cell_length - size
    blanks = len(content.plain) - len(content.plain.rstrip())
    return content.right_crop(min(blanks, excess)) if blanks and excess > 0 else content


_screen_resized = Screen._screen_resized


def use_current_size() -> None:
    """Make a screen always take the current size of the terminal, never an earlier one.

    On a resize, a screen sends itself another resize event. If two sizes are queued at once, each
    event looks like a change from the other, and they alternate for ever. Textual merges resize
    events that are next to each other in the queue, but `PacedApp` lets other events get between
    them. Remove this when a screen sends itself no such event.
    """

    def resized(screen: Screen[Any], size: Size) -> None:
        del size
        _screen_resized(screen, screen.app.size)

    Screen._screen_resized = resized  # type: ignore[assignment]


class PacedDriver(LinuxDriver):
    """A driver that knows whether the terminal has accepted everything written to it.

    Textual writes in a thread, through a queue of thirty items that blocks the event loop when it
    is full: a terminal that is slow or stops reading would block the whole program. Here the queue
    is unbounded, and `PacedApp` draws no frame until it is empty. Remove this class when Textual
    drops frames itself.
    """

    def __init__(self, app: App[Any], **more: Any) -> None:
        super().__init__(app, **more)
        self._terminal: Any = self._file
        self._file = cast("Any", _NotifyingFile(self._terminal, self._count_written))
        self._lock = threading.Lock()
        self._pending = 0
        """Writes that the terminal has not accepted yet."""
        self._on_empty: Callable[[], None] | None = None

    def start_application_mode(self) -> None:
        """Start application mode with an unbounded queue, and writes without a time limit."""
        if isinstance(self._terminal, TerminalOutput):
            self._terminal.limit_waiting(None)
        super().start_application_mode()  # type: ignore[no-untyped-call]
        if self._writer_thread is not None:
            self._writer_thread._queue.maxsize = 0

    def _sigcont_application(self, *_: Any) -> None:
        """Resume after SIGTSTP as Textual does; after SIGSTOP, restart Textual's threads.

        After SIGSTOP the threads that read keys and write to the terminal still run. Textual would
        start a second pair of them, and at the end of the program one of the two key readers would
        still wait for a key. Remove this when Textual checks whether its threads run.
        """
        if self._key_thread is None or not self._key_thread.is_alive():
            super()._sigcont_application()
        else:
            # Called later: the code that the signal interrupted may hold the queue's lock.
            self._loop.call_soon_threadsafe(self._reset_terminal)

    def _reset_terminal(self) -> None:
        """Set up the terminal again, because a shell may have used it, and redraw everything."""
        if self._key_thread is None or self._writer_thread is None or not self._app._running:
            return
        self.exit_event.set()
        self._key_thread.join()
        self.exit_event.clear()
        self._writer_thread._queue.put(None)  # the thread writes what is queued, then ends
        before = self.attrs_before
        self.start_application_mode()
        self.attrs_before = before
        self._app.refresh()

    def run_input_thread(self) -> None:
        """Read keys until quantchat ends or the terminal is closed.

        Reading a terminal that is being closed raises EIO, which Textual would report as an error
        of quantchat. SIGHUP and `terminal.is_hung_up` handle a closed terminal.
        """
        try:
            super().run_input_thread()
        except OSError as error:
            if error.errno != errno.EIO:
                raise

    def write(self, data: str) -> None:
        """Queue `data` for the writer thread. Never blocks."""
        with self._lock:
            self._pending += 1
        super().write(data)

    def when_written(self, call: Callable[[], None]) -> bool:
        """Call `call` in the writer thread as soon as everything is written.

        Return False, without a call, if everything is written already.
        """
        with self._lock:
            if self._pending:
                self._on_empty = call
            return bool(self._pending)

    def _count_written(self) -> None:
        with self._lock:
            self._pending -= 1
            call = None
            if not self._pending:
                call, self._on_empty = self._on_empty, None
        if call is not None:
            call()

    def close(self) -> None:
        """Close; wait a limited time for queued writes (see `TerminalOutput.limit_waiting`)."""
        if isinstance(self._terminal, TerminalOutput):
            self._terminal.limit_waiting(GIVE_UP_S)
        super().close()


class _NotifyingFile:
    """A text file that calls `written` after each write."""

    def __init__(self, file: Any, written: Callable[[], None]) -> None:
        self._file = file
        self._written = written

    def write(self, text: str) -> None:
        self._file.write(text)
        self._written()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class PacedApp(App[None]):
    """Draws a frame only after the terminal has accepted the previous one.

    Each frame holds all changes since the previous one: a Textual batch update lasts from one
    frame until the terminal has accepted it.
    """

    _waiting = False
    """Whether the terminal has not accepted the last frame yet."""
    _redraw = False
    """Whether Textual drew something while `_waiting`. The drawing was not sent, although Textual
    believes that it is on the screen."""

    def get_driver_class(self) -> type[Driver]:
        """Return `PacedDriver` for a terminal, or the driver that TEXTUAL_DRIVER names."""
        usual = super().get_driver_class()
        return PacedDriver if usual is LinuxDriver else usual

    def _display(self, screen: Screen[Any], renderable: RenderableType | None) -> None:
        self._redraw |= self._waiting and renderable is not None
        super()._display(screen, renderable)

    def _end_update(self) -> None:
        super()._end_update()
        loop = asyncio.get_running_loop()

        def written() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: no more frames
                loop.call_soon_threadsafe(self._frame_written)

        driver = self._driver
        if isinstance(driver, PacedDriver) and not self._waiting and driver.when_written(written):
            self._waiting = True
            self._begin_batch()

    def _frame_written(self) -> None:
        self._waiting = False
        self._end_batch()
        if not self._running:
            return
        if self._redraw:
            self._redraw = False
            self.screen.refresh()
        self.screen.check_idle()
