"""What Textual 8.2.8 leaves to its users, each with the reason and when it can go.

Read again whenever the pin in pyproject.toml moves.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import threading
from collections.abc import Awaitable, Callable, MutableMapping
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

from quantchat.app.cell_widths import chop_cells, in_place, measure_so
from quantchat.app.terminal_output import TerminalOutput
from quantchat.text import neutralise


def tell_alt_enter() -> None:
    """Make ESC CR mean Ctrl+J, so that Alt+Enter starts a line and does not send.

    Textual's parser drops the Alt of sequences it does not know. ESC CR is what terminals without
    the kitty keyboard protocol send for Alt+Enter, and what many are set up to send for
    Shift+Enter. Can go when `_xterm_parser` reports `alt+enter` for it.
    """
    sequences = cast("MutableMapping[str, Any]", _ansi_sequences.ANSI_SEQUENCES_KEYS)
    sequences["\x1b\r"] = (Keys.ControlJ,)


XTERM_SHIFT_ENTER = "shift+\r"
"""The name Textual gives to xterm's `CSI 27;2;13~`, which tmux sends with `extended-keys on`.
Can go when the parser names it `shift+enter`, as it does for kitty's `CSI 13;2u`."""


class ControlGuard(LineFilter):
    """Takes control characters out of each line drawn: the last guard, after `neutralise`.

    Textual passes them on: a model's ESC would reach the terminal through any widget. They are
    removed and not marked here, since a mark would be wider than the layout has reckoned with.
    The address of a link, which Textual would send as an OSC 8, goes too: nothing here needs one.
    Can go when Textual strips them itself.
    """

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """Return `segments`, each without controls; all but always the very same list."""
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
    """What writes an escape sequence to the terminal of `app`, in turn with its frames.

    `App.copy_to_clipboard` does so through the same driver, but knows no multiplexer. Can go when
    it wraps OSC 52 for tmux and GNU screen.
    """

    def write(sequence: str) -> None:
        driver = app._driver
        if driver is not None:
            driver.write(sequence)

    return write


def edit_in_order() -> None:
    """Let a key that edits act before what is typed after it is taken.

    Textual hands a key that is no character up to the app, which looks for its binding when its
    turn comes. What was typed after it is in the text by then, where keys come faster than they are
    heard: on a slow line, on a busy machine. Can go when a widget runs its own bindings itself.
    """
    for kind in (TextArea, Input):
        if not getattr(kind._on_key, "in_order", False):
            kind._on_key = _in_order(kind._on_key)  # type: ignore[method-assign,assignment]


def _in_order(typed: Callable[[Any, Key], Awaitable[None]]) -> Callable[[Any, Key], Any]:
    async def on_key(widget: Widget, event: Key) -> None:
        if not event.is_printable:
            for one in widget._bindings.key_to_bindings.get(event.key, ()):
                if await widget.app.run_action(one.action, widget):
                    event.stop()
                    event.prevent_default()
                    return
        await typed(widget, event)

    on_key.in_order = True  # type: ignore[attr-defined]
    return on_key


def let_drawn_lines_go() -> None:
    """Let what was drawn of a widget go with it.

    `StylesCache.get_inner_outer` remembers colours under a key that holds the cache of the widget,
    drawn lines and all: 1024 of them stay long after their widgets, which are days of new chats.
    Can go when its key is the colours alone.
    """
    remembered = StylesCache.get_inner_outer
    if isinstance(remembered, _lru_cache_wrapper):
        colours = lru_cache(1024)(partial(remembered.__wrapped__, None))
        StylesCache.get_inner_outer = lambda self, *two: colours(*two)  # type: ignore[assignment]


_render_style = Strip.render_style.__func__  # type: ignore[attr-defined]


def draw_each_script() -> None:
    """Have text of every script drawn whole, and leave what is beside it whole, on any terminal.

    Rich reckons with fewer cells than many terminals take for a vowel sign or joined emoji, which
    then run over the next column. And Textual counts characters where it means cells when it drops
    the blanks that a line ends with (`Content.rstrip_end`): a line of combining marks came out
    shorter than its place, and the compositor draws no such line at all. Can go when both measure
    what terminals do, by mode 2027 or by asking.
    """
    measure_so()
    _wrap.chop_cells = chop_cells  # type: ignore[attr-defined]
    Content.rstrip_end = _rstrip_end  # type: ignore[method-assign,assignment]
    Strip.render_style = classmethod(_rendered_in_place)  # type: ignore[assignment,method-assign]


def _rendered_in_place(kind: type[Strip], style: Any, text: str, color_system: Any) -> str:
    return cast("str", _render_style(kind, style, in_place(text), color_system))


def _rstrip_end(content: Content, size: int) -> Content:
    excess = content.cell_length - size
    blanks = len(content.plain) - len(content.plain.rstrip())
    return content.right_crop(min(blanks, excess)) if blanks and excess > 0 else content


_screen_resized = Screen._screen_resized


def settle_on_one_size() -> None:
    """Have a screen take the size that the terminal has now, and no earlier one.

    A screen answers each change of size with an event to itself that tells it again. Where two
    sizes wait at once, each is a change from the other, for ever, unless these events meet in the
    queue; between frames, `PacedApp` lets something else stand there. Can go when a screen sends
    itself none.
    """

    def resized(screen: Screen[Any], size: Size) -> None:
        del size
        _screen_resized(screen, screen.app.size)

    Screen._screen_resized = resized  # type: ignore[assignment]


class PacedDriver(LinuxDriver):
    """Knows whether the terminal has taken all that was written to it.

    Textual writes in a thread, through a queue of thirty pieces that blocks the event loop when it
    is full: a terminal that is slow or stops reading would stop the whole program. Here the queue
    has no end, and `PacedApp` draws no frame while there is something in it.
    Can go when Textual drops frames by itself.
    """

    def __init__(self, app: App[Any], **more: Any) -> None:
        super().__init__(app, **more)
        self._terminal: Any = self._file
        self._file = cast("Any", _Tap(self._terminal, self._one_taken))
        self._lock = threading.Lock()
        self._untaken = 0
        self._awaited: Callable[[], None] | None = None

    def start_application_mode(self) -> None:
        """Begin, with a queue that has no end."""
        if isinstance(self._terminal, TerminalOutput):
            self._terminal.stay()
        super().start_application_mode()  # type: ignore[no-untyped-call]
        if self._writer_thread is not None:
            self._writer_thread._queue.maxsize = 0

    def _sigcont_application(self, *_: Any) -> None:
        """Go on after SIGTSTP as Textual does, and after SIGSTOP with the threads there are.

        Textual starts a second pair of threads then, and of two that read keys one waits for a key
        when the program wants to leave. Can go when it looks whether it has threads.
        """
        if self._key_thread is None or not self._key_thread.is_alive():
            super()._sigcont_application()
        else:
            # Not in the handler: what it interrupts may hold the lock of the queue.
            self._loop.call_soon_threadsafe(self._take_terminal_back)

    def _take_terminal_back(self) -> None:
        """Set up the terminal again, which a shell may have had meanwhile, and draw everything."""
        if self._key_thread is None or self._writer_thread is None or not self._app._running:
            return
        self.exit_event.set()
        self._key_thread.join()
        self.exit_event.clear()
        self._writer_thread._queue.put(None)  # it ends once it has written what waits
        before = self.attrs_before
        self.start_application_mode()
        self.attrs_before = before
        self._app.refresh()

    def run_input_thread(self) -> None:
        """Read keys until the program ends, or the terminal does.

        A terminal that is closed while it is read gives an error for a moment, before it is at its
        end. Textual would take that for a mistake of ours; SIGHUP and `terminal.hung_up` tell it.
        """
        try:
            super().run_input_thread()
        except OSError as error:
            if error.errno != errno.EIO:
                raise

    def write(self, data: str) -> None:
        """Write `data` soon. Never blocks."""
        with self._lock:
            self._untaken += 1
        super().write(data)

    def when_taken(self, call: Callable[[], None]) -> bool:
        """Have `call` made, in the writer's thread, once all is taken; False if that is so."""
        with self._lock:
            if self._untaken:
                self._awaited = call
            return bool(self._untaken)

    def _one_taken(self) -> None:
        with self._lock:
            self._untaken -= 1
            call = None
            if not self._untaken:
                call, self._awaited = self._awaited, None
        if call is not None:
            call()

    def close(self) -> None:
        """Wait for what is still to be written, but not for ever."""
        if isinstance(self._terminal, TerminalOutput):
            self._terminal.leave()
        super().close()


class _Tap:
    """A text file that tells of each write that is over."""

    def __init__(self, file: Any, written: Callable[[], None]) -> None:
        self._file = file
        self._written = written

    def write(self, text: str) -> None:
        self._file.write(text)
        self._written()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class PacedApp(App[None]):
    """Draws a frame only when the terminal has taken the last one; what changed meanwhile is in it.

    In Textual's words, there is a batch update from one frame until it is taken.
    """

    _waits = False
    _owed = False
    """Whether something was to be drawn meanwhile that Textual believes to be on the screen."""

    def get_driver_class(self) -> type[Driver]:
        """Ours for a terminal; another where TEXTUAL_DRIVER names it."""
        usual = super().get_driver_class()
        return PacedDriver if usual is LinuxDriver else usual

    def _display(self, screen: Screen[Any], renderable: RenderableType | None) -> None:
        self._owed |= self._waits and renderable is not None
        super()._display(screen, renderable)

    def _end_update(self) -> None:
        super()._end_update()
        loop = asyncio.get_running_loop()

        def taken() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: there is no frame to come
                loop.call_soon_threadsafe(self._frame_taken)

        driver = self._driver
        if isinstance(driver, PacedDriver) and not self._waits and driver.when_taken(taken):
            self._waits = True
            self._begin_batch()

    def _frame_taken(self) -> None:
        self._waits = False
        self._end_batch()
        if not self._running:
            return
        if self._owed:
            self._owed = False
            self.screen.refresh()
        self.screen.check_idle()
