"""The profile: which variants to compare, how to generate, how to run them.

These pydantic models define the file format. From them come the checks of a profile, the JSON
Schema for editors and the documentation of each key.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Literal, Union

from pydantic import (
    AfterValidator,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
)

from quantchat.engines.registry import tables
from quantchat.engines.table import Line, Table
from quantchat.engines.variant import VariantBase


def _token_id(key: str) -> str:
    if not re.fullmatch(r"0|[1-9][0-9]{0,8}", key):
        raise ValueError("must be the id of a token, such as 198")
    return key


TokenId = Annotated[str, AfterValidator(_token_id)]
"""The id of a token, written as a key in TOML."""


class Generation(Table):
    """How answers are generated.

    The default is greedy decoding, so that answers differ only because the variants differ.
    """

    system: str = ""
    """System prompt; empty sends none."""
    max_new_tokens: int = Field(512, ge=1, le=2**20)
    """Longest answer, in tokens, thoughts included."""
    max_thinking_tokens: int = Field(0, ge=0, le=2**20)
    """Most tokens of a model's thoughts. After these the thoughts are ended, and the model answers.
    0: no limit."""
    stop: list[Annotated[str, Field(min_length=1, max_length=256)]] = Field([], max_length=16)
    """Texts that end an answer, e.g. ["User:", "\\n\\n"]. The answer ends before the text."""
    temperature: float = Field(0.0, ge=0, le=10)
    """Sampling temperature; 0 is greedy: always the likeliest token."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Sample from the fewest likeliest tokens with this total probability; 1 is off."""
    top_k: int = Field(0, ge=0)
    """Sample from this many likeliest tokens; 0 is off."""
    min_p: float = Field(0.0, ge=0, le=1)
    """Sample from tokens with at least this share of the highest probability; 0 is off."""
    presence_penalty: float = Field(0.0, ge=-2, le=2)
    """Subtract this from the logit of each token already in the answer; 0 is off."""
    frequency_penalty: float = Field(0.0, ge=-2, le=2)
    """Subtract this from a token's logit for each time it is already in the answer; 0 is off."""
    repetition_penalty: float = Field(1.0, gt=0, le=10)
    """Divide the logits of tokens already seen by this (CTRL, Keskar et al. 2019); 1 is off."""
    logit_bias: dict[TokenId, Annotated[float, Field(ge=-100, le=100)]] = Field({}, max_length=300)
    """Add these values to the logits of tokens, by token id: with { 198 = -100 } token 198 never
    occurs."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Seed of the sampling, the same for each variant."""


def _number_or_auto(value: object, handler: ValidatorFunctionWrapHandler) -> object:
    try:
        return handler(value)
    except ValidationError:
        raise ValueError('must be "auto" or a whole number from 2 to 32') from None


KeepLoaded = Annotated[
    Annotated[int, Field(ge=2, le=32)] | Literal["auto"], WrapValidator(_number_or_auto)
]


class Run(Table):
    """How the variants share the machine, and how often a measurement is repeated."""

    order: Literal["together", "in-turn"] = "together"
    """Whether variants decode `together` (contended), or one at a time (`in-turn`: figures to
    quote)."""
    history: Literal["own", "left", "right"] = "own"
    """Which answers a chat continues from. `own`: each variant's own answers. `left` or `right`:
    both variants continue the answers of that side, so that both get the same question."""
    keep_loaded: KeepLoaded = "auto"
    """How many variants stay loaded, so that the screen can show them again at once: from 2 to 32,
    or as many as fit into memory ("auto"). The variant that has not been shown for the longest time
    is unloaded first."""
    warmup: int = Field(1, ge=0, le=100)
    """Warm-up prompts before a measurement; their answers do not count."""
    rounds: int = Field(5, ge=1, le=10_000)
    """How many times each prompt is measured."""
    prompts: list[Annotated[str, Field(pattern=r"\S")]] = Field([], max_length=10_000)
    """Prompts of a measurement. If empty, five built-in prompts are used."""


AnyVariant = VariantBase
"""A variant of any engine; `quantchat.engines.registry` has the engines' declarations."""

if TYPE_CHECKING:
    Variant = VariantBase
else:
    Variant = Annotated[Union[tables()], Field(discriminator="engine")]  # noqa: UP007 - dynamic


class Profile(Table):
    """A comparison of two or more variants, usually of one model."""

    name: Line = Field(max_length=80)
    """Name of the comparison on the start screen and in snapshots."""
    description: str = ""
    """One sentence that says what is compared, and why."""
    variants: list[Variant] = Field(min_length=2, max_length=32)
    """The variants to compare, at least two. The screen shows two at a time and can switch them."""
    generation: Generation = Generation.model_construct()
    """How answers are generated."""
    run: Run = Run.model_construct()
    """How the variants share the machine."""

    @field_validator("variants")
    @classmethod
    def _labels_differ(cls, variants: list[Variant]) -> list[Variant]:
        labels = Counter(variant.label for variant in variants)
        for label, count in labels.items():
            if count > 1:
                raise ValueError(f'{count} variants have the label "{label}"; each needs its own')
        return variants
