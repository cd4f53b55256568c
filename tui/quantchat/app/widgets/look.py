"""How a column shows its turns."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Look:
    """How all turns of one column are drawn. Commands change it, and new turns use it too."""

    thoughts: bool = False
    """Whether the models' thoughts are shown whole. If folded, only their number of tokens is
    shown."""
    raw: bool = False
    """Whether outputs are shown as the model wrote them, with all marks, and not as Markdown."""
    prompts: bool = False
    """Whether long prompts are shown whole. If folded, only their first lines are shown."""
