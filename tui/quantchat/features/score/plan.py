"""What is to be scored: the text, the windows, the reference, and the reference's floor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from quantchat.corpus import Corpus
from quantchat.engines.registry import engine_of
from quantchat.profile.model import AnyVariant
from quantchat.wire.variant import Resolved

QUICK = 8192
"""Tokens read where nothing else is said."""

WINDOW = 512
"""Tokens of a window where nothing else is said, as in llama.cpp."""

Floor = Literal["attention", "dtype", "none"]


@dataclass(frozen=True)
class ScorePlan:
    """What each model reads, and against what."""

    corpus: Corpus
    reference: AnyVariant
    tokens: int = QUICK
    """Tokens of the text that are read; 0: all."""
    window: int = WINDOW
    stride: int = WINDOW
    floor: Floor = "attention"
    """What of the reference is changed to see how far it is from itself."""


def floor_of(reference: AnyVariant, ran: Resolved, floor: Floor) -> AnyVariant | None:
    """The reference with another attention implementation or dtype; None where none is wanted.

    `ran` is what the reference turned out to be. Not every engine lets its attention be chosen.
    """
    if floor == "none" or (floor == "attention" and not engine_of(reference).selects_attention):
        return None
    if floor == "attention":
        other = "sdpa" if ran.attention == "eager" else "eager"
        change, name = {"attention": other}, f"{other} attention"
    else:
        other = "bfloat16" if ran.dtype == "float32" else "float32"
        change, name = {"dtype": other}, other
    label = f"{reference.label[: 58 - len(name)]}, {name}"
    return reference.model_copy(update={**change, "label": label})
