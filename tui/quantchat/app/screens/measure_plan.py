"""The dialog that asks what to measure: prompts, order, rounds."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import ValidationError
from textual.app import ComposeResult
from textual.widgets import Checkbox, Input, RadioSet

from quantchat.app.commands import command
from quantchat.app.screens.form import Form, WrongValue
from quantchat.app.widgets.space_only_inputs import Choice, Choices, Tick
from quantchat.measuring.rounds import Plan, Task
from quantchat.profile.mistakes import mistakes
from quantchat.profile.model import Run
from quantchat.session import prompts
from quantchat.session.comparison import Comparison

_NUMBERS = ("rounds", "warmup")


class MeasurePlanScreen(Form[Plan]):
    """Returns the plan, or None if the user cancels."""

    WHAT = "Measure both variants in rounds"
    VERB = "measure"
    LABELS: ClassVar[dict[str, str]] = {
        "prompts": "prompts",
        "order": "order",
        "rounds": "rounds",
        "warmup": "warm-up",
        "ignore_eos": "length",
    }
    DEFAULT_CSS = """
    MeasurePlanScreen {
        .dialog { width: 76; padding: 1 2 0 2; }
        RadioSet, RadioSet:focus { layout: vertical; }
        RadioButton, Checkbox { padding: 0; }
        Grid { grid-columns: 10 1fr; }
        Input { width: 12; }
    }
    """

    def __init__(self, comparison: Comparison) -> None:
        super().__init__()
        self._run = comparison.profile.run
        self._profile_prompts = prompts.of_profile(self._run)
        turns = comparison.conversation.turns
        self._chat_prompts = tuple(dict.fromkeys(turn.prompt for turn in turns))
        self._max_new_tokens = comparison.generation.max_new_tokens

    def fields(self) -> ComposeResult:
        """Yield the choices, preset from the profile."""
        source = "of the profile" if self._run.prompts else "built-in, of different kinds"
        yield Choices(
            Choice(f"{len(self._profile_prompts)} {source}", value=True),
            Choice(
                f"{len(self._chat_prompts)} of this conversation, each as a new chat",
                disabled=not self._chat_prompts,
            ),
        )
        yield Choices(
            Choice("one at a time: comparable speeds", value=True),
            Choice("together: both decode at once, contended"),
        )
        yield Input(str(self._run.rounds))
        yield Input(str(self._run.warmup))
        yield Tick("equal: ignore the end-of-sequence token")

    def about(self) -> str:
        """Say how long answers may be, and that the conversation does not change."""
        return (
            f"Answers have at most {self._max_new_tokens} tokens (change it with "
            f"{command('settings').key}) and start with an empty KV cache. The "
            "conversation does not change."
        )

    def result(self) -> Plan:
        """Return the plan. Raises WrongValue."""
        values: dict[str, object] = {}
        for name in _NUMBERS:
            text = self.text(name)
            # The profile model rejects numbers in quotes, so convert the input's text.
            try:
                values[name] = int(text)
            except ValueError:
                raise WrongValue(name, f"{text!r} is not a whole number") from None
        try:
            run = Run.model_validate(values)
        except ValidationError as error:
            first = next(mistakes(error, Run))
            raise WrongValue(str(first.path[0]), first.text) from None
        from_chat = self.query_one("#prompts", RadioSet).pressed_index
        texts = self._chat_prompts if from_chat else self._profile_prompts
        order: Literal["together", "in-turn"] = (
            "together" if self.query_one("#order", RadioSet).pressed_index else "in-turn"
        )
        return Plan(
            tasks=tuple(map(Task, texts)),
            rounds=run.rounds,
            warmup=run.warmup,
            order=order,
            ignore_eos=self.query_one("#ignore_eos", Checkbox).value,
        )
