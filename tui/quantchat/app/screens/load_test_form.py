"""The dialog that asks for the levels of a load test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import click
from textual.app import ComposeResult
from textual.widgets import Checkbox, Input

from quantchat.app.screens.form import Form, WrongValue
from quantchat.app.widgets.space_only_inputs import Tick
from quantchat.features.load_test.plan import (
    LEVELS,
    OUTPUT_TOKENS,
    PROMPT_TOKENS,
    ROUNDS,
    LoadTestPlan,
    levels_in,
    plan_of,
    rates_in,
)
from quantchat.profile.model import Profile
from quantchat.session import prompts
from quantchat.statistics.serving import limits

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class LoadTestSetup:
    """What the user chose in the dialog: the variants, and the load on them."""

    profile: Profile
    plan: LoadTestPlan


class LoadTestForm(Form[LoadTestSetup]):
    """Asks which load to put on the variants of `profile`."""

    WHAT = "Measure under load"
    VERB = "begin"
    LABELS: ClassVar[dict[str, str]] = {
        "at_once": "at once",
        "rates": "requests per s",
        "requests": "requests a round",
        "prompt_tokens": "prompt tokens",
        "output_tokens": "output tokens",
        "rounds": "rounds",
        "slo": "goodput limits",
        "mixed": "batches",
    }

    def __init__(self, profile: Profile) -> None:
        super().__init__()
        self._profile = profile

    def fields(self) -> ComposeResult:
        """Yield the fields."""
        yield Input(placeholder=",".join(map(str, LEVELS)))
        yield Input(placeholder="no fixed rate; e.g. 0.5,2 (servers only)")
        yield Input(placeholder="4 × “at once”, at least 8 (servers only)")
        yield Input(placeholder=f"server: the profile's prompts; local: {PROMPT_TOKENS}")
        yield Input(str(OUTPUT_TOKENS))
        yield Input(str(ROUNDS))
        yield Input(placeholder="none; e.g. ttft_ms < 500, itl_ms.p95 < 50")
        yield Tick("prompts of different lengths (local models)")

    def about(self) -> str:
        """Say what is measured."""
        return (
            "“At once” is the number of requests that a server gets at the same time, or the size"
            " of a local model's static batch. Batches that do not fit into memory are skipped."
        )

    def result(self) -> LoadTestSetup:
        """Return the plan. Raises WrongValue or UserError."""
        number, tokens = click.IntRange(1, 100_000), click.IntRange(1, 10**6)
        at_once = self._parsed("at_once", levels_in)
        rates = self._parsed("rates", rates_in)
        self._parsed("slo", limits)
        plan = plan_of(
            prompts.of_profile(self._profile.run),
            at_once=at_once or (),
            rates=rates or (),
            requests=self.value("requests", number),
            prompt_tokens=self.value("prompt_tokens", tokens),
            output_tokens=self.value("output_tokens", number) or OUTPUT_TOKENS,
            mixed=self.query_one("#mixed", Checkbox).value,
            rounds=self.value("rounds", click.IntRange(1, 1000)) or ROUNDS,
            slo=self.text("slo"),
        )
        plan.check(self._profile)
        return LoadTestSetup(self._profile, plan)

    def _parsed(self, name: str, parse: Callable[[str], _Value]) -> _Value | None:
        """Return the text of the field `name` as parsed by `parse`; None if it is empty.

        Raises WrongValue.
        """
        text = self.text(name)
        try:
            return parse(text) if text else None
        except ValueError as error:
            raise WrongValue(name, str(error)) from None
