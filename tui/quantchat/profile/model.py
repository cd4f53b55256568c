"""The profile: which variants to compare, how to generate, how to run.

These pydantic models are the one description of the file format: the checks, the JSON Schema for
editors and the documentation of each key come from here.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Literal, Union

from pydantic import Field, field_validator

from quantchat.engines.registry import tables
from quantchat.engines.table import Line, Table
from quantchat.engines.variant import VariantBase


class Generation(Table):
    """How answers are generated. Greedy by default, so that differences are the variants' own."""

    system: str = ""
    """System prompt; empty sends none."""
    max_new_tokens: int = Field(512, ge=1, le=2**20)
    """Longest answer, in tokens."""
    temperature: float = Field(0.0, ge=0, le=10)
    """0 is greedy: always the likeliest token."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Sample from the likeliest tokens that hold this share of probability; 1 is off."""
    top_k: int = Field(0, ge=0)
    """Sample from this many likeliest tokens; 0 is off."""
    min_p: float = Field(0.0, ge=0, le=1)
    """Sample from tokens at least this times as likely as the likeliest one; 0 is off."""
    presence_penalty: float = Field(0.0, ge=-2, le=2)
    """Subtract this from the logit of each token that the answer has already; 0 is off."""
    frequency_penalty: float = Field(0.0, ge=-2, le=2)
    """Subtract this for each time that the answer has the token already; 0 is off."""
    repetition_penalty: float = Field(1.0, gt=0, le=10)
    """Divide the logits of tokens already seen by this (CTRL, Keskar et al. 2019); 1 is off."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Seed of the sampling, the same for each variant."""


class Run(Table):
    """How the variants share the machine, and how often a measurement is repeated."""

    order: Literal["together", "in-turn"] = "together"
    """`together`: both decode at once (contended). `in-turn`: one at a time (may be quoted)."""
    history: Literal["own", "left", "right"] = "own"
    """What a chat continues from: `own`, each variant's own answers; `left` or `right`, for both
    the answers of that side, so that later turns compare the same question."""
    keep_loaded: int = Field(2, ge=2, le=32)
    """How many variants stay loaded, so that the screen shows them again at once. Of those that are
    not shown, the one that was shown longest ago is ended first."""
    warmup: int = Field(1, ge=0, le=100)
    """Prompts answered and thrown away before measuring."""
    rounds: int = Field(5, ge=1, le=10_000)
    """How often each prompt is measured."""
    prompts: list[Annotated[str, Field(pattern=r"\S")]] = Field([], max_length=10_000)
    """What is asked when measuring; empty asks five of quantchat's own."""


AnyVariant = VariantBase
"""A variant of any engine; `quantchat.engines.registry` has what its engine declares."""

if TYPE_CHECKING:
    Variant = VariantBase
else:
    Variant = Annotated[Union[tables()], Field(discriminator="engine")]  # noqa: UP007 - made here


class Profile(Table):
    """A comparison: two variants or more, of one model as a rule."""

    name: Line = Field(max_length=80)
    """What the start screen and the snapshots call it."""
    description: str = ""
    """A sentence on what is compared, and why."""
    variants: list[Variant] = Field(min_length=2, max_length=32)
    """What is compared, two or more. The screen shows two at a time and can switch which."""
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
