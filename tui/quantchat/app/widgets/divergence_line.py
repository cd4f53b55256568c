"""One line that says where the two answers part, and how likely either way on was."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from textual.content import Content
from textual.widget import Widget

from quantchat.app.widgets.text_layout import SIDES, outside, quiet
from quantchat.document.figures import plural
from quantchat.session.conversation import (
    Answer,
    Turn,
    divergence_point,
    same_tokenizer,
    text_divergence,
)
from quantchat.session.teacher_forcing import is_greedy
from quantchat.statistics.divergence import Continuation
from quantchat.text import one_line

_LONGEST = 18
"""Characters shown of a token, or of the words that begin with it."""


class DivergenceLine(Widget):
    """Where the answers to the newest prompt part; not there before two were given."""

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
        """Tokens, or characters, that both answers are known to begin with: they are not compared
        again."""

    def observe(self, turn: Turn | None, labels: tuple[str, str]) -> None:
        """Draw where the answers of `turn` part; `labels` are of the variants, left and right."""
        if turn is not self._turn or labels != self._labels:
            self._same = 0
        self._turn, self._labels = turn, labels
        answers = self._answers()
        # Once it is there it stays, lest the columns jump at each prompt.
        if answers is not None:
            self.add_class("-known")
        self.refresh()

    def _answers(self) -> tuple[Answer, Answer] | None:
        if self._turn is None or not all(label in self._turn.answers for label in self._labels):
            return None
        return self._turn.answers[self._labels[0]], self._turn.answers[self._labels[1]]

    def render(self) -> Content:
        """The longest form that fits."""
        answers = self._answers()
        if self._turn is None or answers is None:
            return Content()
        width = self.size.width
        forms = self._forms(self._turn, *answers)
        fits = (form for form in forms if form.cell_length <= width)
        return next(fits, forms[-1].truncate(width, ellipsis=True))

    def _forms(self, turn: Turn, first: Answer, second: Answer) -> list[Content]:
        """What is to be said, the longest form first."""
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
    """The same of answers whose texts part at character `point`, and whose tokens say nothing."""
    server = first.in_chunks or second.in_chunks
    why = quiet(" (a server tells no token ids)" if server else " (tokenizers differ)")
    if point is None:
        said = plural(min(len(first.text), len(second.text)), "character")
        if not (first.over and second.over):
            return [quiet(f"same text for {said} so far")]
        told = Content(f"same text, {said}")
    else:
        count = plural(point, "character")
        start = Content(f"same text for {count}, then " if point else "part at once: ")
        texts = (answer.text[point : point + _LONGEST + 1] for answer in (first, second))
        told = start + _excerpts(first, second, texts)
    return [told + why, told]


def _token_forms(turn: Turn, first: Answer, second: Answer, point: int | None) -> list[Content]:
    """The same of answers that part at token `point`."""
    if point is None:
        over = first.over and second.over
        said = plural(min(len(first.ids), len(second.ids)), "token")
        return [Content(f"same answer, {said}") if over else quiet(f"same for {said} so far")]
    start = Content(f"same for {plural(point, 'token')}, then " if point else "part at once: ")
    if not (is_greedy(first) and is_greedy(second)):
        excerpts = start + _excerpts(first, second, _from_token(first, second, point))
        return [excerpts + quiet(" (sampled: chance parts them too)"), excerpts]
    continuations = (
        {way.variant: way for way in turn.divergence.continuations} if turn.divergence else {}
    )
    told = [
        continuations[answer.variant]
        for answer in (first, second)
        if answer.variant in continuations
    ]
    if len(told) == 2 and all(way.own is not None for way in told):
        return [start + _joined(form) for form in _chances(told, (first, second), point)]
    excerpts = start + _excerpts(first, second, _from_token(first, second, point))
    problem = next((way.problem for way in told if way.problem), "")
    more = quiet(f" (probabilities not known: {one_line(problem)})" if problem else "")
    return [excerpts + more, excerpts]


def _chances(
    continuations: Sequence[Continuation], answers: Sequence[Answer], point: int
) -> tuple[list[Content], list[Content]]:
    """Each token with its probability: with that of the other's token too, and without."""
    tokens = [
        f"token {answer.ids[point]}" if way.in_character else _quoted(way.token)
        for way, answer in zip(continuations, answers, strict=True)
    ]
    short = [
        outside(f"{token} {_chance(way.own)}", side)
        for way, token, side in zip(continuations, tokens, SIDES, strict=True)
    ]
    full = [
        own + quiet(f" ({one_line(other)} {_chance(way.other)})")
        for own, other, way in zip(short, reversed(tokens), continuations, strict=True)
    ]
    return full, short


def _joined(parts: list[Content]) -> Content:
    return quiet(" / ").join(parts)


def _quoted(token: str) -> str:
    if not token:
        return "end"
    return f"‘{_cut(token.replace(chr(10), '↵').strip() or '␣')}’"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _chance(probability: float | None) -> str:
    if probability is None:
        return ""
    return f"{probability:.2f}" if probability >= 0.005 else "<0.01"


def _excerpts(first: Answer, second: Answer, texts: Iterable[str]) -> Content:
    """The first words of what each goes on with; `end` where there are none."""
    each = zip((first, second), texts, SIDES, strict=True)
    return _joined([outside(_words(answer, text.strip()), side) for answer, text, side in each])


def _from_token(first: Answer, second: Answer, point: int) -> Iterable[str]:
    """What each says from token `point` on."""
    return ("".join(answer.output_pieces[point : point + _LONGEST]) for answer in (first, second))


def _words(answer: Answer, text: str) -> str:
    if text:
        return f"“{_cut(text)}”"
    return "…" if not answer.over else "end" if answer.reason == "eos" else "cut off"
