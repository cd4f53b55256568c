"""The themes (dark, light, high contrast), with one colour for each side."""

from __future__ import annotations

from textual.theme import Theme

VARIABLES = {"side-left": "#7fb4e0", "side-right": "#e0b178", "quiet": "#8b95a3", "rule": "#2e333c"}
"""Our colour variables (the two sides, secondary text, rules), with values for themes that do not
define them."""

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


def after(name: str) -> str:
    """Return the theme after `name`, cyclically; the first theme if `name` is not ours."""
    names = [theme.name for theme in THEMES]
    return names[(names.index(name) + 1) % len(names)] if name in names else names[0]
