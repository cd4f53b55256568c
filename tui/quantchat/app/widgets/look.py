"""How a column shows its turns."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Look:
    """What commands change for all turns of one column, and what new turns begin with."""

    thoughts: bool = False
    """Whether the models' thoughts are shown whole; folded, only how many tokens they have."""
    raw: bool = False
    """Whether outputs are shown as the model wrote them, with all marks, and not as Markdown."""
    prompts: bool = False
    """Whether long prompts are shown whole; folded, only their first lines."""
