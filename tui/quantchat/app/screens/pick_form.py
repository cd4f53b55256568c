"""The dialog that asks for the limits of a pick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, get_args

import click
from textual.app import ComposeResult
from textual.widgets import Checkbox, Input, RadioSet

from quantchat.app.screens.form import Form
from quantchat.app.widgets.space_only_inputs import Choice, Choices, Tick
from quantchat.checkpoints.variant_files import PROMPT_TOKENS
from quantchat.console.units import Share, Size, Tokens
from quantchat.document.figures import plural
from quantchat.features.pick.plan import PickPlan, PickSettings, plan_of, with_methods
from quantchat.profile.model import Profile
from quantchat.session import prompts
from quantchat.snapshot.pick import Preference

_POSITIVE = click.FloatRange(0, min_open=True)
_PREFERENCES: tuple[Preference, ...] = get_args(Preference)


@dataclass(frozen=True)
class PickSetup:
    """What the user chose in the dialog: the variants, and how to measure and decide."""

    profile: Profile
    plan: PickPlan
    fresh: bool
    """Whether to measure again what a stopped pick has measured already."""


class PickForm(Form[PickSetup]):
    """Asks how to pick one of the variants of `profile`."""

    WHAT = "Pick one of many variants"
    VERB = "begin"
    LABELS: ClassVar[dict[str, str]] = {
        "methods": "variants",
        "prefer": "prefer",
        "max_memory": "most memory",
        "context": "at a context of",
        "min_tps": "least tok/s",
        "max_kld": "largest KLD",
        "max_drop": "accuracy loss",
        "minutes": "minutes",
        "rounds": "rounds",
        "fresh": "earlier results",
    }

    def __init__(self, profile: Profile) -> None:
        super().__init__()
        self._profile = profile

    def fields(self) -> ComposeResult:
        """Yield the fields; an empty limit is no limit."""
        defaults = PickSettings(prompts=())
        yield Input(placeholder="the profile's; or bf16,nf4,gptq,…; or all")
        yield Choices(*(Choice(one, value=place == 0) for place, one in enumerate(_PREFERENCES)))
        yield Input(placeholder="no limit; e.g. 24GB or 800MiB")
        yield Input(placeholder=f"{defaults.max_new_tokens + PROMPT_TOKENS} tokens; e.g. 16k")
        yield Input(placeholder="no limit; e.g. 40")
        yield Input(placeholder="no limit; e.g. 0.05")
        yield Input(placeholder="no limit; e.g. 1% (needs lm-evaluation-harness)")
        yield Input(placeholder="until everything is measured; e.g. 20")
        yield Input(str(defaults.rounds))
        yield Tick("ignore them and measure everything again")

    def about(self) -> str:
        """Say what is measured, and that a stopped pick continues."""
        count = plural(len(prompts.of_profile(self._profile.run)), "prompt")
        return (
            f"Loads one variant after the other, measures its speed on {count} and its KLD from"
            " the reference model. A stopped pick continues, also with other limits."
        )

    def result(self) -> PickSetup:
        """Return the plan. Raises WrongValue or UserError."""
        methods = self.text("methods")
        profile = with_methods(self._profile, methods) if methods else self._profile
        pressed = self.query_one("#prefer", RadioSet).pressed_index
        defaults = PickSettings(prompts=())
        settings = PickSettings(
            prompts=prompts.of_profile(self._profile.run),
            prefer=_PREFERENCES[max(0, pressed)],
            max_memory=self.value("max_memory", Size()),
            context=self.value("context", Tokens()),
            min_tps=self.value("min_tps", _POSITIVE),
            max_kld=self.value("max_kld", _POSITIVE),
            max_drop=self.value("max_drop", Share()),
            minutes=self.value("minutes", _POSITIVE),
            rounds=self.value("rounds", click.IntRange(2, 1000)) or defaults.rounds,
        )
        profile, plan = plan_of(profile, settings)
        return PickSetup(profile, plan, self.query_one("#fresh", Checkbox).value)
