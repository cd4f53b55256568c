"""Cross-perplexity: each answer, with the tokens marked that the other variant finds unlikely."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.events import Resize
from textual.screen import ModalScreen
from textual.widgets import Static

from quantchat.app.widgets.dialog import Dialog
from quantchat.app.widgets.text_layout import SIDES, quiet, untrusted
from quantchat.session.comparison import Comparison
from quantchat.session.conversation import Answer, Turn
from quantchat.statistics.surprisal import LEVELS, CrossPerplexity, level
from quantchat.text import neutralise

STYLES = ("", "underline", "bold underline $warning", "bold reverse $error")
"""Style of each surprisal level, the lowest first. The styles differ even without colours."""

_NARROW = 72


class CrossPerplexityScreen(ModalScreen[None]):
    """Shows the perplexity of both answers to `turn` under both variants of `comparison`."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape,q", "leave", "Close")]
    DEFAULT_CSS = """
    CrossPerplexityScreen {
        .dialog { padding: 0 1; width: 96%; max-width: 180; height: 92%; }
        Horizontal { height: 1fr; }
        &.-narrow Horizontal { layout: vertical; }
        VerticalScroll { width: 1fr; height: 1fr; padding: 0 1; }
        .first { border-left: vkey $side-left; }
        .second { border-left: vkey $side-right; }
        Static { height: auto; }
    }
    """

    def __init__(self, comparison: Comparison, turn: Turn) -> None:
        super().__init__()
        self._comparison = comparison
        self._turn = turn
        self._sides = [Static(classes="text"), Static(classes="text")]

    def compose(self) -> ComposeResult:
        """Lay out the two answers and the legend of the styles."""
        with Dialog("Cross-perplexity: each answer as the other variant predicts it"):
            with Horizontal():
                for side, place in zip(self._sides, ("first", "second"), strict=True):
                    with VerticalScroll(classes=place):
                        yield side
            yield Static(legend(), id="legend")

    def on_mount(self) -> None:
        """Start computing."""
        for side in self._sides:
            side.update(quiet("computing"))
        self.query_one(VerticalScroll).focus()
        self.run_worker(self._score_tokens(), exit_on_error=False)

    def on_resize(self, event: Resize) -> None:
        """Stack the answers on a narrow terminal."""
        self.set_class(event.size.width < _NARROW, "-narrow")

    def action_leave(self) -> None:
        """Close, and cancel a computation that still runs."""
        for variant in self._comparison.sides:
            variant.preempt()
        self.dismiss(None)

    async def _score_tokens(self) -> None:
        await self._comparison.compute_cross_perplexity(self._turn)
        for side, answer, colour in zip(self._sides, self._as_on_screen(), SIDES, strict=True):
            side.update(report(answer, colour))

    def _as_on_screen(self) -> list[Answer]:
        """Return the left and the right answer, in the current order of the columns."""
        places = {variant.label: place for place, variant in enumerate(self._comparison.sides)}
        answers = self._turn.answers.values()
        return sorted(answers, key=lambda one: places.get(one.variant, len(places)))[:2]


def legend() -> Content:
    """Return the legend: the probability that each style stands for."""
    named = (f"p ≥ {LEVELS[0]:g}", *(f"p < {bound:g}" for bound in LEVELS))
    return Content("  ").join(
        Content.styled(f" {name} ", style) for name, style in zip(named, STYLES, strict=True)
    )


def report(answer: Answer, colour: str) -> Content:
    """Return the perplexity of `answer` under each variant, then its text with marked tokens."""
    head = untrusted(answer.variant, f"bold {colour}") + quiet(": perplexity of this answer")
    others = [one for one in answer.cross_perplexities if one.by != answer.variant]
    for one in answer.cross_perplexities:
        who = "itself" if one.by == answer.variant else one.by
        value = one.perplexity
        text = f"under {who}: – ({one.problem})" if value is None else f"under {who}: {value:.3f}"
        head += quiet("\n") + untrusted(text, "$quiet")
    body = (
        marked(answer, others[0])
        if others and others[0].logprobs
        else Content(answer.thoughts + answer.text)
    )
    return head + Content("\n\n") + body


def marked(answer: Answer, scored: CrossPerplexity) -> Content:
    """Return the raw text of `answer`, each token in the style of its surprisal level."""
    text, worst = Content(), 0
    # The end-of-sequence token has a logprob but no text.
    for piece, logprob in zip(answer.output_pieces, scored.logprobs, strict=False):
        worst = max(worst, level(logprob))
        if piece:  # the level of a token without text is shown on the next token with text
            text += Content.styled(neutralise(piece), STYLES[worst])
            worst = 0
    return text
