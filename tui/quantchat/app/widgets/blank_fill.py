"""Draws the plain background of containers; applies the app's line filters to a widget's lines."""

from __future__ import annotations

from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget


def blank_lines(widget: Widget, crop: Region) -> list[Strip]:
    """Return blank lines for `crop`: a fast `render_lines` for containers that draw no content.

    Textual redraws a container, line by line and below its children, whenever its size or scroll
    offset changes. With Textual's own `render_lines`, this took half of the time of a frame while
    text streamed.
    """
    return [with_line_filters(widget, Strip.blank(crop.width, widget.rich_style))] * crop.height


def with_line_filters(widget: Widget, strip: Strip) -> Strip:
    """Return `strip` after the app's line filters (no control characters; NO_COLOR)."""
    for line_filter in widget.app.get_line_filters():
        if line_filter.enabled:
            strip = strip.apply_filter(line_filter, widget.background_colors[1])
    return strip
