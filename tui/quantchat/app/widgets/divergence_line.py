"""The line that shows where two answers diverge, and the probability of each next token."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from textual.content import Content
from textual.widget import Widget

from quantchat.app.widgets.text_layout import SIDES, quiet, untrusted
from quantchat.document.figures import plural
from quantchat.session.conversation import (
    NATURAL_ENDS,
    Answer,
    Turn,
    divergence_point,
    same_tokenizer,
    text_divergence,
)
from quantchat.session.teacher_forcing import is_greedy
from quantchat.statistics.divergence import Continuation
from quantchat.text import one_line

_MAX_SHOWN = 18
"""Characters shown of a token, or of the text that begins with it."""


class DivergenceLine(Widget):
    """Shows where the answers to the newest prompt diverge; hidden before there are two answers."""

    DEFAULT_CSS = """
    DivergenceLine {
        display: none; height: 1; padding: 0 1; background: $panel; text-wrap: nowrap;
        &.-known { display: block; }
    }
    """

    def __init__(self) -> None:
        super().__init__()
        self._turn: Turn | None = None
        self._labels: tuple[str, str] = ("", "")
        self._same = 0
        """Length of the common start found so far, in tokens or characters: the next comparison
        begins behind it."""

    def observe(self, turn: Turn | None, labels: tuple[str, str]) -> None:
        """Draw the divergence of `turn`; `labels` name the left and the right variant."""
        if turn is not self._turn or labels != self._labels:
            self._same = 0
        self._turn, self._labels = turn, labels
        answers = self._answers()
        # Once shown, the line stays: hiding it for each prompt would move the columns.
        if answers is not None:
            self.add_class("-known")
        self.refresh()

    def _answers(self) -> tuple[Answer, Answer] | None:
        if self._turn is None or not all(label in self._turn.answers for label in self._labels):
            return None
        return self._turn.answers[self._labels[0]], self._turn.answers[self._labels[1]]

    def render(self) -> Content:
        """Return the longest form that fits."""
        answers = self._answers()
        if self._turn is None or answers is None:
            return Content()
        width = self.size.width
        forms = self._forms(self._turn, *answers)
        fits = (form for form in forms if form.cell_length <= width)
        return next(fits, forms[-1].truncate(width, ellipsis=True))

    def _forms(self, turn: Turn, first: Answer, second: Answer) -> list[Content]:
        """Return the forms of the line, the longest first."""
        if not first.ids or not second.ids:
            return [Content()]
        if not same_tokenizer(first, second):
            point = text_divergence(first, second, same=self._same)
            if point is None:
                self._same = min(len(first.text), len(second.text))
            return _text_forms(first, second, point)
        point = divergence_point(first, second, same=self._same)
        if point is None:
            self._same = min(len(first.ids), len(second.ids))
        return _token_forms(turn, first, second, point)


def _text_forms(first: Answer, second: Answer, point: int | None) -> list[Content]:
    """Return the forms for answers whose tokens cannot be compared, only their texts.

    `point` is the first character at which the texts differ, None if there is none.
    """
    server = first.from_server or second.from_server
    why = quiet(" (servers report no token ids)" if server else " (tokenizers differ)")
    if point is None:
        common = plural(min(len(first.text), len(second.text)), "character")
        if not (first.over and second.over):
            return [quiet(f"same text for {common} so far")]
        line = Content(f"same text, {common}")
    else:
        count = plural(point, "character")
        start = Content(f"same text for {count}, then " if point else "differ from the start: ")
        texts = (answer.text[point : point + _MAX_SHOWN + 1] for answer in (first, second))
        line = start + _excerpts(first, second, texts)
    return [line + why, line]


def _token_forms(turn: Turn, first: Answer, second: Answer, point: int | None) -> list[Content]:
    """Return the forms for answers that diverge at token `point`, None if they do not."""
    if point is None:
        over = first.over and second.over
        common = plural(min(len(first.ids), len(second.ids)), "token")
        return [Content(f"same answer, {common}") if over else quiet(f"same for {common} so far")]
    start = Content(
        f"same for {plural(point, 'token')}, then " if point else "differ from the start: "
    )
    excerpts = start + _excerpts(first, second, _from_token(first, second, point))
    if not (is_greedy(first) and is_greedy(second)):
        return [excerpts + quiet(" (sampled: answers also differ by chance)"), excerpts]
    by_variant = (
        {continuation.variant: continuation for continuation in turn.divergence.continuations}
        if turn.divergence
        else {}
    )
    continuations = [
        by_variant[answer.variant] for answer in (first, second) if answer.variant in by_variant
    ]
    if len(continuations) == 2 and all(
        continuation.own is not None for continuation in continuations
    ):
        forms = _with_probabilities(continuations, (first, second), point)
        return [start + _join_with_slash(form) for form in forms]
    problem = next(
        (continuation.problem for continuation in continuations if continuation.problem), ""
    )
    more = quiet(f" (probabilities not known: {one_line(problem)})" if problem else "")
    return [excerpts + more, excerpts]


def _with_probabilities(
    continuations: Sequence[Continuation], answers: Sequence[Answer], point: int
) -> tuple[list[Content], list[Content]]:
    """Return each token with its probability, in a long and a short form.

    The long form adds the probability of the other answer's token.
    """
    tokens = [
        f"token {answer.ids[point]}"
        if continuation.is_partial_character
        else _quoted(continuation.token)
        for continuation, answer in zip(continuations, answers, strict=True)
    ]
    short = [
        untrusted(f"{token} {_probability(continuation.own)}", side)
        for continuation, token, side in zip(continuations, tokens, SIDES, strict=True)
    ]
    full = [
        text + quiet(f" ({one_line(other_token)} {_probability(continuation.other)})")
        for text, other_token, continuation in zip(
            short, reversed(tokens), continuations, strict=True
        )
    ]
    return full, short


def _join_with_slash(parts: list[Content]) -> Content:
    return quiet(" / ").join(parts)


def _quoted(token: str) -> str:
    if not token:
        return "end"
    return f"‘{_cut(token.replace(chr(10), '↵').strip() or '␣')}’"


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"


def _probability(probability: float | None) -> str:
    if probability is None:
        return ""
    return f"{probability:.2f}" if probability >= 0.005 else "<0.01"


def _excerpts(first: Answer, second: Answer, texts: Iterable[str]) -> Content:
    """Return the next words of each answer; `end` if the answer has ended."""
    each = zip((first, second), texts, SIDES, strict=True)
    return _join_with_slash(
        [untrusted(_words(answer, text.strip()), side) for answer, text, side in each]
    )


def _from_token(first: Answer, second: Answer, point: int) -> Iterable[str]:
    """Return the text of each answer from token `point` on."""
    return ("".join(answer.output_pieces[point : point + _MAX_SHOWN]) for answer in (first, second))


def _words(answer: Answer, text: str) -> str:
    if text:
        return f"“{_cut(text)}”"
    return "…" if not answer.over else "end" if answer.reason in NATURAL_ENDS else "cut off"
