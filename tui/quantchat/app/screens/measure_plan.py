"""The dialog that asks what to measure: prompts, order, rounds."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import ValidationError
from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Grid
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Checkbox, Input, Label, RadioSet, Static

from quantchat.app.commands import command
from quantchat.app.widgets.dialog import Dialog
from quantchat.app.widgets.space_only_inputs import Choice, Choices, Tick
from quantchat.app.widgets.text_layout import quiet
from quantchat.measuring.rounds import Plan, Task
from quantchat.profile.mistakes import mistakes
from quantchat.profile.model import Run
from quantchat.session import prompts
from quantchat.session.comparison import Comparison
from quantchat.text import one_line

_NUMBERS = ("rounds", "warmup")


class MeasurePlanScreen(ModalScreen["Plan | None"]):
    """Returns the plan, or None if the user cancels."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("escape", "dismiss", "Cancel"),
        ("enter,ctrl+s", "begin", "Measure"),
    ]
    DEFAULT_CSS = """
    MeasurePlanScreen {
        .dialog { width: 76; padding: 1 2 0 2; }
        RadioSet, RadioSet:focus {
            border: none; padding: 0; width: 1fr; background: transparent;
        }
        RadioSet:blur > RadioButton.-selected > .toggle--label { background: transparent; }
        RadioButton, Checkbox { border: none; padding: 0; background: transparent; height: 1; }
        Checkbox:focus { border: none; background: $primary 20%; }
        Grid { grid-size: 2; grid-columns: 10 1fr; grid-rows: auto; height: auto; }
        Input { border: none; height: 1; padding: 0 1; background: $panel; width: 12; }
        Input:focus { background: $primary 20%; border: none; }
        #about { height: auto; margin-top: 1; color: $quiet; }
        #complaint { height: auto; min-height: 1; color: $error; }
    }
    """

    def __init__(self, comparison: Comparison) -> None:
        super().__init__()
        self._run = comparison.profile.run
        self._profile_prompts = prompts.of(self._run)
        turns = comparison.conversation.turns
        self._chat_prompts = tuple(dict.fromkeys(turn.prompt for turn in turns))
        self._max_new_tokens = comparison.generation.max_new_tokens

    def compose(self) -> ComposeResult:
        """Lay out the choices, preset from the profile."""
        source = "of the profile" if self._run.prompts else "built-in, of different kinds"
        keys = "Enter or ^S: measure · Tab: next · Space: choose · Esc: cancel"
        with Dialog("Measure both variants in rounds", keys):
            with Grid():
                yield Label("prompts")
                with Choices(id="prompts"):
                    yield Choice(f"{len(self._profile_prompts)} {source}", value=True)
                    yield Choice(
                        f"{len(self._chat_prompts)} of this conversation, each as a new chat",
                        disabled=not self._chat_prompts,
                    )
                yield Label("order")
                with Choices(id="order"):
                    yield Choice("one at a time: comparable speeds", value=True)
                    yield Choice("together: both decode at once, contended")
                yield Label("rounds")
                yield Input(str(self._run.rounds), id="rounds")
                yield Label("warm-up")
                yield Input(str(self._run.warmup), id="warmup")
                yield Label("length")
                yield Tick("equal: ignore the end-of-sequence token", id="ignore_eos")
            yield Static(
                quiet(
                    f"Answers have at most {self._max_new_tokens} tokens (change it with "
                    f"{command('settings').key}) and start with an empty KV cache. The "
                    "conversation does not change."
                ),
                id="about",
            )
            yield Static(id="complaint")

    @on(Input.Submitted)
    def action_begin(self) -> None:
        """Validate the input and return the plan, or show what is wrong."""
        values: dict[str, object] = {}
        for name in _NUMBERS:
            text = self.query_one(f"#{name}", Input).value.strip()
            # The profile model rejects numbers in quotes, so convert the input's text.
            try:
                values[name] = int(text)
            except ValueError:
                self._complain(name, f"{text!r} is not a whole number")
                return
        try:
            run = Run.model_validate(values)
        except ValidationError as error:
            first = next(mistakes(error, Run))
            self._complain(str(first.path[0]), first.text)
            return
        from_chat = self.query_one("#prompts", RadioSet).pressed_index
        texts = self._chat_prompts if from_chat else self._profile_prompts
        order: Literal["together", "in-turn"] = (
            "together" if self.query_one("#order", RadioSet).pressed_index else "in-turn"
        )
        self.dismiss(
            Plan(
                tasks=tuple(map(Task, texts)),
                rounds=run.rounds,
                warmup=run.warmup,
                order=order,
                ignore_eos=self.query_one("#ignore_eos", Checkbox).value,
            )
        )

    def _complain(self, name: str, complaint: str) -> None:
        text = one_line(f"{name.replace('warmup', 'warm-up')}: {complaint}")
        self.query_one("#complaint", Static).update(Content(text))
        self.query_one(f"#{name}").focus()
