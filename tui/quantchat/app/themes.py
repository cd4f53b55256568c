"""The themes (dark, light, high contrast), with one colour for each side."""

from __future__ import annotations

from dataclasses import replace

from textual.theme import Theme

VARIABLES = {"side-left": "#7fb4e0", "side-right": "#e0b178", "quiet": "#8b95a3", "rule": "#2e333c"}
"""Our colour variables (the two sides, secondary text, dividing lines), with values for themes that
do not define them."""

# The dark backgrounds have a saturation below 0.15, so that Rich maps them to greys on a terminal
# with 256 colours. More saturated, they would become navy or teal.
_DARK = Theme(
    name="dark",
    dark=True,
    primary="#7fb4e0",
    secondary="#6f8aa6",
    accent="#7fb4e0",
    foreground="#d7dce4",
    background="#121418",
    surface="#1a1d23",
    panel="#24282f",
    success="#8cc08c",
    warning="#e0b178",
    error="#e58080",
    variables={**VARIABLES, "scrollbar": "#39424f", "scrollbar-background": "#121418"},
)

_LIGHT = Theme(
    name="light",
    dark=False,
    primary="#1f5f99",
    secondary="#5d7a96",
    accent="#1f5f99",
    foreground="#22262c",
    background="#fbfbf9",
    surface="#f0f0ec",
    panel="#e4e4df",
    success="#256b36",
    warning="#8a5200",
    error="#b3261e",
    variables={
        "side-left": "#1f5f99",
        "side-right": "#8a5200",
        "quiet": "#5b636e",
        "rule": "#d2d2cb",
        "scrollbar": "#b9b9b1",
        "scrollbar-background": "#fbfbf9",
    },
)

_CONTRAST = Theme(
    name="high contrast",
    dark=True,
    primary="#5fd7ff",
    secondary="#ffffff",
    accent="#5fd7ff",
    foreground="#ffffff",
    background="#000000",
    surface="#000000",
    panel="#1c1c1c",
    success="#5fff87",
    warning="#ffd75f",
    error="#ff8787",
    text_alpha=1.0,
    variables={
        "side-left": "#5fd7ff",
        "side-right": "#ffd75f",
        "quiet": "#d8d8d8",
        "rule": "#8a8a8a",
        "scrollbar": "#ffffff",
        "scrollbar-background": "#303030",
    },
)

THEMES = (_DARK, _LIGHT, _CONTRAST)

# A terminal with only 16 colours would show most of the colours above as greys, and the same grey
# for both sides. So it gets other colours, which are among its 16 (the standard palette of VGA).
_BLACK, _RED, _GREEN = "#000000", "#aa0000", "#00aa00"
_BLUE, _MAGENTA, _SILVER, _GREY = "#0000aa", "#aa00aa", "#aaaaaa", "#555555"
_BRIGHT_RED, _BRIGHT_GREEN, _YELLOW = "#ff5555", "#55ff55", "#ffff55"
_BRIGHT_CYAN, _WHITE = "#55ffff", "#ffffff"


def _in_16_colours(theme: Theme) -> Theme:
    if theme.dark:
        left, right, success, error = _BRIGHT_CYAN, _YELLOW, _BRIGHT_GREEN, _BRIGHT_RED
        text, quiet, ground = _WHITE, _SILVER, _BLACK
    else:
        left, right, success, error = _BLUE, _MAGENTA, _GREEN, _RED
        text, quiet, ground = _BLACK, _GREY, _WHITE
    return replace(
        theme,
        primary=left,
        secondary=quiet,
        accent=left,
        foreground=text,
        background=ground,
        surface=ground,
        panel=ground,
        success=success,
        warning=right,
        error=error,
        variables={
            "side-left": left,
            "side-right": right,
            "quiet": text if theme.name == _CONTRAST.name else quiet,
            "rule": _GREY if theme.dark else _SILVER,
            "scrollbar": quiet,
            "scrollbar-background": ground,
        },
    )


def for_terminal(color_system: str | None) -> tuple[Theme, ...]:
    """Return the themes for a terminal with Rich's `color_system`; `standard` is 16 colours."""
    return tuple(map(_in_16_colours, THEMES)) if color_system == "standard" else THEMES


def next_theme(name: str) -> str:
    """Return the theme after `name`, cyclically; the first theme if `name` is not ours."""
    names = [theme.name for theme in THEMES]
    return names[(names.index(name) + 1) % len(names)] if name in names else names[0]
