"""Dark, light and high contrast: calm grounds, one colour for each side."""

from __future__ import annotations

from textual.theme import Theme

VARIABLES = {"side-left": "#7fb4e0", "side-right": "#e0b178", "quiet": "#8b95a3", "rule": "#2e333c"}
"""Our own colours, with the values for any theme that does not name them: the two sides, text
that stands back, and lines."""

# The dark grounds are just grey enough (a saturation below 0.15) for Rich to take them for greys
# where a terminal has 256 colours: the nearest of its blues are navy and teal.
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
    """The theme that follows `name` in the round; the first one for a theme not ours."""
    names = [theme.name for theme in THEMES]
    return names[(names.index(name) + 1) % len(names)] if name in names else names[0]
