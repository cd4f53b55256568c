"""Full rounds of Python's garbage collector, put into moments in which nothing streams.

One looks at each of the objects that modules, widgets and answers are made of, 150,000 and more,
and was seen to take 60 to 125 ms in the middle of answers: for so long no key is heard.
"""

from __future__ import annotations

import gc

FULL_AFTER = 1000
"""Rounds over the younger objects after which there is a full one all the same: an answer may take
hours. Python's own figure is 10."""

_ours = False


def take_over() -> None:
    """Let `settle` do what it says: only the program itself does, for it concerns the process."""
    global _ours
    _ours = True
    youngest, middle, _ = gc.get_threshold()
    gc.set_threshold(youngest, middle, FULL_AFTER)


def settle() -> None:
    """Collect now, and let the rounds to come pass over what is left.

    What becomes garbage of it is found here the next time.
    """
    if _ours:
        gc.unfreeze()
        gc.collect()
        gc.freeze()
