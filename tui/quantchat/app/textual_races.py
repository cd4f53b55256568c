"""What Textual 8.2.8 raises on keys in quick succession and on a terminal of a few columns.

Each has its reason, and can go when Textual no longer raises: `tests/fakes/random_keys.py` finds
out. Read again whenever the pin in pyproject.toml moves.
"""

from __future__ import annotations

from typing import Any, cast

from textual import work
from textual.await_complete import AwaitComplete
from textual.command import CommandList, CommandPalette
from textual.content import Content
from textual.css.query import NoMatches
from textual.errors import NoWidget
from textual.events import Click, Compose, Mount
from textual.geometry import Offset, Region
from textual.message import Message
from textual.message_pump import MessagePump
from textual.screen import Screen
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import OptionList, TextArea


def survive_races() -> None:
    """Put what follows in place. May be called again."""
    MessagePump._dispatch_message = _dispatch  # type: ignore[method-assign,assignment]
    Screen.dismiss = _dismiss_once  # type: ignore[method-assign,assignment]
    OptionList._move_page = _move_page  # type: ignore[method-assign,assignment]
    OptionList._on_click = _click_option  # type: ignore[method-assign,assignment]
    Screen.get_widget_and_offset_at = _attached_widget_at  # type: ignore[method-assign,assignment]
    TextArea._recompute_cursor_offset = _recompute_cursor_offset  # type: ignore[method-assign]
    Widget.render_lines = _render_lines  # type: ignore[method-assign,assignment]
    Content.wrap = _wrap  # type: ignore[method-assign,assignment]
    CommandPalette._on_click = _on_click  # type: ignore[method-assign,assignment]
    CommandPalette._gather_commands = _gather_commands  # type: ignore[method-assign]


_dispatch_message = MessagePump._dispatch_message


async def _dispatch(pump: MessagePump, message: Message) -> None:
    """Have a widget hear the next message after one that made it raise.

    Textual ends its message loop, and the app. What to do is left to `App._handle_exception`. What
    raises while a widget is being made is passed on: it would be half a widget.
    """
    try:
        await _dispatch_message(pump, message)
    except Exception as error:
        if isinstance(message, (Compose, Mount)):
            raise
        pump.app._handle_exception(error)


_dismiss = Screen.dismiss


def _dismiss_once(screen: Screen[Any], result: Any = None) -> AwaitComplete:
    """Have a dialog that is left already stay left.

    `Screen.dismiss` calls back and takes the topmost screen away, whichever that is: of two keys in
    quick succession the second would end the screen below.
    """
    if screen.app.screen_stack[-1:] != [screen]:
        return cast("AwaitComplete", AwaitComplete.nothing())  # type: ignore[no-untyped-call]
    return _dismiss(screen, result)


_page = OptionList._move_page


def _move_page(options: OptionList, direction: Any) -> None:
    """Move by a page only where the highlighted line is laid out: a list without room has none."""
    if (options.highlighted or 0) in options._index_to_line:
        _page(options, direction)


_option_clicked = OptionList._on_click


async def _click_option(options: OptionList, event: Click) -> None:
    """Ignore a click on an option that is no longer there: the list may have become shorter."""
    clicked = event.style.meta.get("option")
    if clicked is None or clicked < options.option_count:
        await _option_clicked(options, event)


_recompute = TextArea._recompute_cursor_offset


def _recompute_cursor_offset(area: TextArea) -> None:
    """Leave the cursor where it is drawn while the text is shorter than it was when it was wrapped.

    A new text is not wrapped yet when its scroll bar goes; it is a moment later.
    """
    if area.cursor_location[0] < area.wrapped_document.document.line_count:
        _recompute(area)  # type: ignore[no-untyped-call]


_wrap_at = Content.wrap


def _wrap(content: Content, width: int, **more: Any) -> list[Content]:
    """Wrap at one column where there is none, as in a text box on a terminal of three columns."""
    return _wrap_at(content, max(1, width), **more)


_clicked = CommandPalette._on_click


def _on_click(palette: CommandPalette, event: Click) -> None:
    """Ignore a click on what is no longer there, after the terminal has become smaller."""
    try:
        _clicked(palette, event)
    except NoWidget:
        event.stop()


_gather: Any = CommandPalette._gather_commands.__wrapped__  # type: ignore[attr-defined]


@work(exclusive=True, group=CommandPalette._GATHER_COMMANDS_GROUP)
async def _gather_commands(palette: CommandPalette, search_value: str) -> None:
    """Look for commands no longer once the palette is taken down, and its list is gone."""
    try:
        await _gather(palette, search_value)
    except NoMatches:
        if palette.query(CommandList):
            raise


_widget_at = Screen.get_widget_and_offset_at


def _attached_widget_at(screen: Screen[Any], x: int, y: int) -> tuple[Widget | None, Offset | None]:
    """Find no widget that was taken away: it has no parent in which a selection could begin."""
    widget, offset = _widget_at(screen, x, y)
    return (widget, offset) if widget is not None and widget.is_attached else (None, None)


_drawn = Widget.render_lines


def _render_lines(widget: Widget, crop: Region) -> list[Strip]:
    """Draw nothing of a widget that was taken away.

    Below a dialog it may still be asked for its lines, and has no screen to ask what is selected.
    """
    if not widget.is_attached:
        return [Strip.blank(crop.width)] * crop.height
    return _drawn(widget, crop)
