"""One turn in one column: the prompt, the streamed answer, and how it ended."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import Static

from quantchat.app import terminal
from quantchat.app.commands import command
from quantchat.app.widgets.answer_view import AnswerView
from quantchat.app.widgets.blank_fill import blank_lines
from quantchat.app.widgets.divergence_mark import MARK_STYLE, DivergenceMark
from quantchat.app.widgets.failure_note import explanation, title_of
from quantchat.app.widgets.look import Look
from quantchat.app.widgets.text_layout import join_fitting, quiet
from quantchat.document import figures
from quantchat.session.conversation import NATURAL_ENDS, Answer, AnswerState, Turn
from quantchat.text import neutralise


class TurnView(Vertical):
    """Draws a turn; each `tick` reads what is new in its answer, until the answer is over."""

    DEFAULT_CSS = """
    TurnView {
        height: auto; padding: 0 1; margin-bottom: 1;
        .prompt { height: auto; padding: 0 0 0 1; border-left: outer $quiet; text-style: bold; }
        AnswerView { margin-top: 1; }
        .thinking { height: 1; padding: 0 0 0 2; margin-top: 1; text-wrap: nowrap; }
        .thoughts { margin-top: 0; color: $quiet; text-style: italic; }
        .end { height: auto; padding: 0 0 0 2; }
        Summary { height: 1; padding: 0 0 0 2; text-wrap: nowrap; }
    }
    """

    def __init__(self, turn: Turn, variant: str, look: Look | None = None) -> None:
        super().__init__()
        self.turn = turn
        self._variant = variant
        self.answer: Answer | None = turn.answers.get(variant)
        self._look = look or Look()
        self._raw = False
        """Whether the answer's view shows the raw output."""
        self._prompt = Static(classes="prompt")
        self._written = 0
        self._ended = self.answer is None
        self._end = Static(id="end", classes="end")
        self.divergence = DivergenceMark(turn, variant)
        self._text = self._new_text()
        self._thoughts: _Thoughts | None = None
        """The view of the reasoning; None before the model writes any."""
        self._shown_end: Content | None = None
        self._summary = Summary()

    def _new_text(self) -> AnswerView:
        """Return an empty view for the answer, or for the raw output."""
        self._raw, self._written = self._look.raw, 0
        self._ended = self.answer is None
        self.divergence.moved(0)
        # The mark is searched in the answer, and a raw output has the thoughts before it.
        mark = None if self._raw and self.answer and self.answer.thoughts else self.divergence
        return AnswerView(mark, step=terminal.pace().step, raw=self._raw)

    def compose(self) -> ComposeResult:
        """Lay out prompt, answer, ending and figures."""
        self._show_prompt()
        yield self._prompt
        yield self._text
        yield self._end
        yield self._summary

    def render_lines(self, crop: Region) -> list[Strip]:
        """Return the plain background."""
        return blank_lines(self, crop)

    @property
    def fully_drawn(self) -> bool:
        """Whether the whole answer is drawn and will not change."""
        texts = [self._text, *(self._thoughts.texts if self._thoughts else [])]
        return self._ended and not any(text.busy for text in texts)

    @property
    def divergence_y(self) -> int:
        """Row of the screen where the answers diverge."""
        return self._text.region.y + self._text.marked_line

    def line_of(self, text: str) -> int:
        """Return the row, from the turn's top, of the answer's first line that contains `text`.

        Upper and lower case are not distinguished. Return 0 if no line of the answer contains
        `text`: then it is in the prompt, or is wrapped over two lines.
        """
        row = self._text.line_of(text)
        return 0 if row is None else self._text.region.y - self.region.y + row

    def _show_prompt(self) -> None:
        self._prompt.update(prompt_text(self.turn.prompt, folded=not self._look.prompts))

    def show_look(self) -> None:
        """Draw the turn as its column's `Look` says now."""
        self._show_prompt()
        if self._raw != self._look.raw:
            self._begin_text()
        self.tick()

    def _begin_text(self) -> None:
        """Replace the view of the answer with an empty one."""
        before, self._text = self._text, self._new_text()
        self.mount(self._text, after=before)
        before.remove()
        self._shown_end = None

    def _follow_turn(self) -> None:
        """Start again if the turn has another answer now.

        The user may have sent a missed prompt, taken back a queued one, or switched to an earlier
        or later answer.
        """
        answer = self.turn.answers.get(self._variant)
        if answer is self.answer:
            return
        self.answer = answer
        if self._thoughts is not None:
            self._thoughts.remove()
            self._thoughts = None
        self.divergence = DivergenceMark(self.turn, self._variant)
        self._begin_text()

    def tick(self) -> None:
        """Draw what arrived since the last tick; when the answer is complete, redraw it once."""
        self._follow_turn()
        answer = self.answer
        if self._thoughts is None and answer is not None and answer.thoughts:
            self._thoughts = _Thoughts(self, before=self._text)
        if self._thoughts is not None and answer is not None:
            self._thoughts.follow(answer, shown=not self._raw, open_=self._look.thoughts)
        if self.fully_drawn and self._shown_end is not None and self.divergence.over:
            return
        if answer is not None and not self._ended:
            if answer.over:
                self._text.complete_with((answer.raw or answer.text) if self._raw else answer.text)
                self._ended = True
            else:
                new = (answer.output_pieces if self._raw else answer.pieces)[self._written :]
                self._written += len(new)
                self._text.write("".join(new))
        if self.divergence.update():
            self._text.show_mark()
        end = _end_of(answer) if answer is not None else _why_no_answer(self.turn, self._variant)
        end = Content("\n").join([*([end] if end else []), *_versions(self.turn)])
        if self.divergence.ends:
            end = Content("\n").join(
                [*([end] if end else []), Content.styled(_ENDS_FIRST, MARK_STYLE)]
            )
        if end != self._shown_end:
            self._shown_end = end
            self._end.update(end)
            self._summary.show(answer)
        self._end.display = bool(end)
        text = answer and (answer.text or (self._raw and answer.thoughts))
        self._text.display = bool(text)


FOLDED_LINES, FOLDED_CHARACTERS = 12, 1200
"""A prompt of more lines or characters is folded."""
_FIRST_LINES, _FIRST_CHARACTERS = 4, 400
"""Most lines and characters that a folded prompt shows."""


def prompt_text(prompt: str, *, folded: bool) -> Content:
    """Return `prompt` without control characters; if it is long and `folded`, its beginning."""
    lines = prompt.split("\n")
    if not folded or (len(lines) <= FOLDED_LINES and len(prompt) <= FOLDED_CHARACTERS):
        return Content(neutralise(prompt))
    begin = "\n".join(lines[:_FIRST_LINES])[:_FIRST_CHARACTERS].rstrip()
    size = f"{figures.plural(len(lines), 'line')}, {len(prompt):,} characters"
    return Content(neutralise(begin)) + quiet(f" …\n▸ {size} ({command('prompts').key} opens)")


class _Thoughts:
    """A model's reasoning above its answer: one line, and if opened, the text below this line."""

    def __init__(self, turn: TurnView, *, before: AnswerView) -> None:
        self._turn = turn
        self._head = Static(classes="thinking")
        self._text: AnswerView | None = None
        """The drawn reasoning; None as long as it was never opened."""
        self._written = 0
        self._over = False
        self._shown: Content | None = None
        turn.mount(self._head, before=before)

    def remove(self) -> None:
        """Remove the reasoning from the screen."""
        self._head.remove()
        for text in self.texts:
            text.remove()

    @property
    def texts(self) -> list[AnswerView]:
        """The view of the reasoning, if it was opened."""
        return [self._text] if self._text is not None else []

    def follow(self, answer: Answer, *, shown: bool, open_: bool) -> None:
        """Draw new reasoning of `answer`; when the answer is complete, redraw it all once."""
        if shown and open_ and self._text is None:
            self._text = AnswerView(step=terminal.pace().step)
            self._text.add_class("thoughts")
            self._turn.mount(self._text, after=self._head)
        self._head.display = shown
        if self._text is not None:
            self._text.display = shown and open_
            if not self._over and answer.over:
                self._text.complete_with(answer.thoughts)
                self._over = True
            elif not answer.over:
                new = answer.thought_pieces[self._written :]
                self._written += len(new)
                self._text.write("".join(new))
        thinks = not answer.over and answer.first_answer_token < 0
        title = (figures.thinking if thinks else figures.thoughts)(answer.thinking_tokens)
        hint = "" if open_ else f" · {command('thoughts').key} opens"
        head = quiet(f"{'▾' if open_ else '▸'} {title}{hint}")
        if head != self._shown:
            self._shown = head
            self._head.update(head)


_ENDS_FIRST = " ends here; the other answer goes on "


def _why_no_answer(turn: Turn, variant: str) -> Content:
    """Return why `variant` has no answer in `turn`."""
    why = turn.not_sent.get(variant, "the variant was not shown")
    return quiet(f"no answer: {why} · {command('ask_missing').key} asks now")


def _versions(turn: Turn) -> list[Content]:
    """Return the line that tells which answers are shown, if the turn was regenerated."""
    if not turn.others:
        return []
    keys = f"{command('earlier_answers').key} {command('later_answers').key}"
    return [quiet(f"answers {turn.shown_version + 1} of {len(turn.versions)} · {keys}")]


def _end_of(answer: Answer) -> Content:
    """Return the line under an answer: why it has no text yet, or how it ended."""
    if answer.queued:
        return quiet(f"queued until the variant is ready · {command('stop').key} takes it back")
    if answer.state is AnswerState.WAITING:
        waiting = "waiting for the other answer" if answer.order == "in-turn" else "waiting"
        return quiet(waiting)
    if answer.state is AnswerState.PREFILL and answer.from_server:
        return quiet("waiting for the server's first token")
    if answer.state is AnswerState.PREFILL:
        share = f" {answer.prefill_done} of {answer.prefill_total}" if answer.prefill_done else ""
        return quiet(f"reading the prompt{share}, {answer.prompt_tokens} tokens")
    if answer.state is AnswerState.STREAMING:
        return quiet("▍")
    return Content("\n").join(_how_it_ended(answer))


def _how_it_ended(answer: Answer) -> list[Content]:
    lines: list[Content] = []
    failure = answer.failure
    if (
        failure is not None and failure.turn < 0
    ):  # the variant failed, which the note below the turns explains
        lines = [Content.styled(f"■ interrupted: {title_of(failure)}", "$error")]
    elif failure is not None:
        lines = [Content.styled(title_of(failure), "bold $error"), *explanation(failure)]
    elif answer.reason in NATURAL_ENDS and not answer.text:
        how = "after its reasoning, without an answer" if answer.thoughts else "without text"
        lines = [quiet(f"■ ended {how}")]
    if answer.reason in _ENDINGS:
        lines.append(Content.styled(_ENDINGS[answer.reason], "$warning"))
    if answer.context_full:
        lines.append(
            Content(
                f"{command('remove_oldest').key} removes the oldest turn, "
                f"{command('new_chat').key} starts a new chat"
            )
        )
    return lines


_ENDINGS = {
    "stop": "■ stopped",
    "stop_string": "■ ended at a stop string",
    "length": f"■ cut off: max new tokens reached ({command('settings').key} changes it)",
    "context": "■ cut off: the context is full",
}
"""Reason why an answer ended → the line below it."""


class Summary(Widget):
    """One line with the figures of a complete answer, as many as fit."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[Content] = []
        self.display = False

    def show(self, answer: Answer | None) -> None:
        """Show the figures of `answer` if it is over."""
        self.display = answer is not None and answer.over and bool(answer.times_ns)
        if answer is None or not self.display:
            return
        timing = answer.timing()
        count = timing.output_tokens
        texts = (
            figures.plural(len(answer.times_ns), "chunk")
            if count < 0
            else figures.plural(count, "token"),
            "" if count < 0 else f"{figures.number(timing.decode_tok_s)} tok/s",
            figures.ORDERS[answer.order],
            f"TTFT {figures.milliseconds(timing.ttft_ms)}",
            f"TTFA {figures.milliseconds(timing.ttfa_ms)}" if answer.thoughts else "",
        )
        self._parts = [quiet(text) for text in texts if text]
        self.refresh()

    def render(self) -> Content:
        """Return the figures, the most important first."""
        return join_fitting(self._parts, self.size.width, gap=" · ")
