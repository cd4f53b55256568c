"""The background of containers that show nothing else."""

from __future__ import annotations

from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget


def ground(widget: Widget, crop: Region) -> list[Strip]:
    """For a container's `render_lines`: one and the same blank line, for any part.

    Textual draws a container anew, line by line, below whatever covers it, each time its size or
    scroll offset changes: for text that is streamed, half of the cost of a frame.
    """
    return [filtered(widget, Strip.blank(crop.width, widget.rich_style))] * crop.height


def filtered(widget: Widget, strip: Strip) -> Strip:
    """`strip` as Textual's own lines are: without controls, and without colour for NO_COLOR."""
    for line_filter in widget.app.get_line_filters():
        if line_filter.enabled:
            strip = strip.apply_filter(line_filter, widget.background_colors[1])
    return strip
