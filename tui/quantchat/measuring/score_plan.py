"""The plan for scoring a text: text, windows, reference, and how to measure the noise floor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from quantchat.corpus import Corpus
from quantchat.engines.registry import engine_of
from quantchat.profile.model import AnyVariant
from quantchat.wire.variant import ModelInfo

DEFAULT_TOKENS = 8192
"""Default number of tokens of the text that are read."""

WINDOW = 512
"""Default window of a `ScorePlan` in tokens, the same as in llama.cpp. Only the KLD by depth (the
mean KLD of each part of the window) needs a longer one."""

LONGEST = 4096
"""Default window of `quantchat score` in tokens, where text, context and memory allow it."""

Floor = Literal["attention", "dtype", "none"]
"""Which setting of the reference is changed to measure the noise floor; "none": do not measure it.
"""


@dataclass(frozen=True)
class ScorePlan:
    """The text that each model scores, and the reference."""

    corpus: Corpus
    reference: AnyVariant
    tokens: int = DEFAULT_TOKENS
    """Number of tokens of the text that are read; 0: all."""
    window: int = WINDOW
    """Tokens that a model reads at a time."""
    stride: int = WINDOW
    """Tokens from the beginning of one window to the beginning of the next."""
    fit: bool = False
    """Whether to use shorter windows if the text, the model's context length or the free memory
    requires it."""
    window_limit: str = ""
    """Why `window` is shorter than the default; empty if it is not."""
    depths: bool = False
    """Whether to compute the KLD by depth. For it, the models are also compared on the first tokens
    of each window, which are not scored."""
    floor: Floor = "attention"
    """Which setting of the reference is changed to measure the noise floor."""
    pair: bool = True
    """Whether the first two variants are also compared with each other."""


def longest_window(variants: Sequence[AnyVariant]) -> tuple[int, str]:
    """Return the longest window that all `variants` accept, in tokens, and what limits it.

    The window is at most `LONGEST`; the second value is empty if nothing else limits it. A server's
    context length is unknown and may be shorter than that of its model, so a server gets `WINDOW`.
    """
    window, limit = LONGEST, ""
    for spec in variants:
        engine = engine_of(spec)
        most = WINDOW if engine.is_server else engine.cached_tokens(spec, LONGEST)
        if most < window:
            window = most
            limit = (
                f"{spec.label} is behind a server, whose context is not known"
                if engine.is_server
                else f"{spec.label} has a context of {most}"
            )
    return window, limit


def floor_of(reference: AnyVariant, ran: ModelInfo, floor: Floor) -> AnyVariant | None:
    """Return the reference with another attention implementation or dtype; None: no noise floor.

    `ran` has the attention implementation and the dtype with which the reference ran. With `floor`
    "attention", there is no noise floor if the engine has a single attention implementation.
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
