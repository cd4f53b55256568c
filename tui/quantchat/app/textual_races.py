"""Patches for exceptions that Textual 8.2.8 raises on fast keys and on very narrow terminals.

Each patch gives its reason. It can be removed when Textual no longer raises the exception; the test
`tests/fakes/random_keys.py` shows whether it does. Review the patches when the Textual version in
pyproject.toml changes.
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


def patch_exceptions() -> None:
    """Install the patches of this module. May be called again."""
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


_textual_dispatch = MessagePump._dispatch_message


async def _dispatch(pump: MessagePump, message: Message) -> None:
    """Let a widget handle further messages after one of them raised an exception.

    Textual would end the widget's message loop and the app; here `App._handle_exception` decides.
    An exception while a widget is being composed or mounted is raised, because the widget is
    incomplete. A dialog that is closed while it opens gets no children, so that its `on_mount`
    fails: this exception is dropped with the dialog.
    """
    try:
        await _textual_dispatch(pump, message)
    except Exception as error:
        if isinstance(message, (Compose, Mount)):
            if pump._closing or getattr(pump, "_pruning", False):
                return
            raise
        pump.app._handle_exception(error)


_textual_dismiss = Screen.dismiss


def _dismiss_once(screen: Screen[Any], result: Any = None) -> AwaitComplete:
    """Dismiss a dialog only once.

    `Screen.dismiss` removes the topmost screen, whichever that is: the second of two fast keys
    would close the screen below.
    """
    if screen.app.screen_stack[-1:] != [screen]:
        return cast("AwaitComplete", AwaitComplete.nothing())  # type: ignore[no-untyped-call]
    return _textual_dismiss(screen, result)


_textual_move_page = OptionList._move_page


def _move_page(options: OptionList, direction: Any) -> None:
    """Move by a page only if the highlighted line is laid out; without room, no line is."""
    if (options.highlighted or 0) in options._index_to_line:
        _textual_move_page(options, direction)


_textual_click_option = OptionList._on_click


async def _click_option(options: OptionList, event: Click) -> None:
    """Ignore a click on an option that no longer exists: the list may have become shorter."""
    clicked = event.style.meta.get("option")
    if clicked is None or clicked < options.option_count:
        await _textual_click_option(options, event)


_textual_recompute_cursor_offset = TextArea._recompute_cursor_offset


def _recompute_cursor_offset(area: TextArea) -> None:
    """Do not move the drawn cursor while the wrapped text is outdated and too short.

    When a new, shorter text makes the scroll bar disappear, the text is wrapped only afterwards.
    """
    if area.cursor_location[0] < area.wrapped_document.document.line_count:
        _textual_recompute_cursor_offset(area)  # type: ignore[no-untyped-call]


_textual_wrap = Content.wrap


def _wrap(content: Content, width: int, **more: Any) -> list[Content]:
    """Wrap at width 1 if the width is 0, as in a text box on a terminal of three columns."""
    return _textual_wrap(content, max(1, width), **more)


_textual_on_click = CommandPalette._on_click


def _on_click(palette: CommandPalette, event: Click) -> None:
    """Ignore a click outside the palette after the terminal has become smaller."""
    try:
        _textual_on_click(palette, event)
    except NoWidget:
        event.stop()


_textual_gather_commands: Any = CommandPalette._gather_commands.__wrapped__  # type: ignore[attr-defined]


@work(exclusive=True, group=CommandPalette._GATHER_COMMANDS_GROUP)
async def _gather_commands(palette: CommandPalette, search_value: str) -> None:
    """Stop gathering commands when the palette is closed and its list is removed."""
    try:
        await _textual_gather_commands(palette, search_value)
    except NoMatches:
        if palette.query(CommandList):
            raise


_textual_widget_at = Screen.get_widget_and_offset_at


def _attached_widget_at(screen: Screen[Any], x: int, y: int) -> tuple[Widget | None, Offset | None]:
    """Do not return a removed widget: it has no parent in which a selection could start."""
    widget, offset = _textual_widget_at(screen, x, y)
    return (widget, offset) if widget is not None and widget.is_attached else (None, None)


_textual_render_lines = Widget.render_lines


def _render_lines(widget: Widget, crop: Region) -> list[Strip]:
    """Draw blank lines for a removed widget.

    Textual may still ask a widget below a dialog for its lines; without a screen, it cannot look
    up the selection and raises.
    """
    if not widget.is_attached:
        return [Strip.blank(crop.width)] * crop.height
    return _textual_render_lines(widget, crop)
