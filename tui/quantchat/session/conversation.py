"""What was said: one prompt for all variants, one answer from each. Pure data, no processes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from quantchat.statistics.divergence import DivergenceScore
from quantchat.statistics.latency import Percentiles, TurnTiming
from quantchat.statistics.surprisal import CrossPerplexity
from quantchat.system.energy import Energy
from quantchat.wire.messages import (
    Event,
    Failed,
    Finished,
    Generate,
    Message,
    Prefilled,
    Ready,
    Started,
    Tokens,
)
from quantchat.wire.variant import Ledger

Order = Literal["together", "in-turn"]


class AnswerState(Enum):
    """Where an answer is. The last two are final."""

    WAITING = "waiting"
    PREFILL = "prefill"
    STREAMING = "streaming"
    DONE = "done"
    FAILED = "failed"


@dataclass
class Answer:
    """One variant's answer, growing while it streams. Times are the worker's own clock, ns."""

    variant: str
    order: Order
    """How it was decoded; `together` where the other variant decoded, or was made, meanwhile."""
    state: AnswerState = AnswerState.WAITING
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens taken from the kept KV cache, not computed."""
    prefill_done: int = 0
    prefill_total: int = 0
    received_ns: int = 0
    prefilled_ns: int = 0
    """When the last prompt token was computed."""
    ids: list[int] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    times_ns: list[int] = field(default_factory=list)
    counted: int | None = None
    """Output tokens by a server's count, which comes at the end: `ids` are its chunks. -1: not
    counted, or not yet. None where each token came by itself."""
    text: str = ""
    """What was answered so far; the pieces joined, until the worker's whole decoding comes."""
    thoughts: str = ""
    """What the model thought before that (its reasoning), which is no part of the answer."""
    thought_pieces: list[str] = field(default_factory=list)
    """The text of the thoughts that each token made final, as `pieces` has the answer's; empty
    where there are none."""
    thought_tokens: int = 0
    """Output tokens that are thoughts, known at the end; -1: there are, not counted."""
    raw: str = ""
    """Thoughts and answer as the model wrote them, with its marks; empty where that is `text`."""
    reason: str = ""
    """Why it ended: eos, length, stop, context, failed; empty while it goes on."""
    failure: Failed | None = None
    ledger: Ledger | None = None
    """Memory at the end of the answer."""
    energy: Energy | None = None
    """What it took of the GPU's energy, if that was measured."""
    cross_perplexities: list[CrossPerplexity] = field(default_factory=list)
    """What each variant thinks of it, once they were asked."""
    request: Generate | None = None
    """What was sent to the worker; None while it waits for its turn."""
    ready: Ready | None = None
    """What it runs on: the variant may be ended or loaded anew before a snapshot is taken."""

    @property
    def output_tokens(self) -> int:
        """Tokens said so far, by a server's count where there is one; -1: not counted."""
        return len(self.ids) if self.counted is None else self.counted

    @property
    def output_pieces(self) -> list[str]:
        """The text that each token made final, of the thoughts or of the answer."""
        if not self.thought_pieces:
            return self.pieces
        return [a + b for a, b in zip(self.thought_pieces, self.pieces, strict=True)]

    def thinks_at(self, token: int) -> bool:
        """Whether output token `token` belongs to the thoughts."""
        return thinks_at(self.thought_pieces, self.pieces, token)

    @property
    def in_chunks(self) -> bool:
        """Whether a server sent it, whose chunks may hold several tokens and have no ids."""
        return self.counted is not None

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.state in (AnswerState.DONE, AnswerState.FAILED)

    @property
    def context_full(self) -> bool:
        """Whether it ended, or never began, for want of context."""
        return self.reason == "context" or (
            self.failure is not None and self.failure.kind == "context_full"
        )

    def grow(self, event: Event, *, counted_apart: bool) -> None:
        """Take in what the worker says of it.

        `counted_apart`: the tokens are counted by a server, at the end, and not one by one.
        """
        match event:
            case Started():
                self.state = AnswerState.PREFILL
                # From the beginning: what is cut off before the end was never counted.
                self.counted = -1 if counted_apart else None
                self.received_ns = event.received_ns
                self.prompt_tokens = event.prompt_tokens
                self.cached_tokens = event.cached_tokens
                self.prefill_total = event.prompt_tokens - event.cached_tokens
            case Prefilled():
                self.prefill_done, self.prefill_total = event.done, event.total
                if event.done >= event.total:
                    self.prefilled_ns = event.at_ns
            case Tokens():
                self.state = AnswerState.STREAMING
                if event.thoughts or self.thought_pieces:
                    before = len(self.ids) - len(self.thought_pieces)
                    now = event.thoughts or [""] * len(event.ids)
                    self.thought_pieces += [*[""] * before, *now]
                self.ids += event.ids
                self.pieces += event.pieces
                self.times_ns += event.times_ns
                self.text += "".join(event.pieces)
                self.thoughts += "".join(event.thoughts)
            case Finished():
                self.text, self.thoughts, self.raw = event.text, event.thoughts, event.raw
                self.thought_tokens = event.thought_tokens
                self.reason = event.reason
                if event.chunks >= 0:
                    self.counted = event.output_tokens
                    self.prompt_tokens = max(0, event.prompt_tokens)
                    self.cached_tokens = event.cached_tokens
                self.state = AnswerState.DONE
            case Failed():
                self.fail(event)

    def never_asked(self) -> None:
        """End it: it was stopped before its turn came."""
        self.state, self.reason = AnswerState.DONE, "stop"

    def fail(self, failure: Failed) -> None:
        """End it with `failure`; what was said is kept."""
        self.failure = failure
        self.reason = "failed"
        self.state = AnswerState.FAILED

    def timing(self, itl: Percentiles | None = None) -> TurnTiming:
        """Latency and throughput, finished or growing; `itl` where its percentiles are known."""
        return TurnTiming.of(
            received_ns=self.received_ns,
            times_ns=self.times_ns,
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
            prefilled_ns=self.prefilled_ns,
            tokens=self.counted,
            itl=itl,
        )


@dataclass
class Turn:
    """One prompt and the answers to it, by variant label."""

    number: int
    prompt: str
    answers: dict[str, Answer] = field(default_factory=dict)
    divergence: DivergenceScore | None = None
    """How likely either way on was where the answers part, once the variants were asked."""

    @property
    def over(self) -> bool:
        """Whether each answer is over."""
        return all(answer.over for answer in self.answers.values())


@dataclass
class Conversation:
    """The turns so far. `system` is sent first where it is not empty."""

    system: str = ""
    turns: list[Turn] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    """Numbers for turns. A worker must never get one twice: a late `Stop` names its turn."""

    def begin(self, prompt: str, answers: list[Answer]) -> Turn:
        """Add a turn for `prompt` with the (waiting) `answers`."""
        turn = Turn(next(self.numbers), prompt, {answer.variant: answer for answer in answers})
        self.turns.append(turn)
        return turn

    def messages_for(self, variant: str, turn: Turn) -> list[Message]:
        """The chat `variant` gets for `turn`: what itself said before, and the new prompt.

        Turns it did not answer (it was not on the screen, or it failed) are left out: no model is
        made to own words it did not say.
        """
        messages = [Message("system", self.system)] if self.system else []
        for earlier in self.turns:
            if earlier is turn:
                break
            answer = earlier.answers.get(variant)
            if answer is not None and answer.text:
                messages.append(Message("user", earlier.prompt))
                messages.append(Message("assistant", answer.text))
        messages.append(Message("user", turn.prompt))
        return messages

    @property
    def extent(self) -> tuple[tuple[int, int, bool], ...]:
        """How far it has come: another value means that something was said since."""
        return tuple(
            (turn.number, len(answer.ids), answer.over)
            for turn in self.turns
            for answer in turn.answers.values()
        )

    def drop_last(self) -> Turn | None:
        """Take the last turn away (to ask it again) and return it."""
        return self.turns.pop() if self.turns else None

    def drop_oldest(self) -> Turn | None:
        """Take the first turn away: the way on when the context is full."""
        return self.turns.pop(0) if self.turns else None


def thinks_at(thoughts: Sequence[str], answer: Sequence[str], token: int) -> bool:
    """Whether the text that output token `token` begins is part of the thoughts.

    `thoughts` and `answer` are the pieces of both; the first is empty where there are none.
    """
    pairs = zip(thoughts[token:], answer[token:], strict=False)
    return next((bool(thought) for thought, piece in pairs if thought or piece), False)


def same_tokenizer(first: Answer, second: Answer) -> bool:
    """Whether the token ids of two answers mean the same; not where one's tokenizer is unknown."""
    hashes = [a.ready.resolved.tokenizer_hash if a.ready else "" for a in (first, second)]
    return hashes[0] == hashes[1] != ""


def divergence_point(first: Answer, second: Answer, *, same: int = 0) -> int | None:
    """Index of the first output token at which two answers differ, or None.

    The first `same` tokens are known to be equal.

    Also where one ends and the other goes on, once the shorter is over. Token ids are compared:
    meaningful only where `same_tokenizer`.
    """
    return _first_difference((first, first.ids), (second, second.ids), same)


def text_divergence(first: Answer, second: Answer, *, same: int = 0) -> int | None:
    """The same by characters of the texts, for answers whose token ids cannot be compared."""
    return _first_difference((first, first.text), (second, second.text), same)


def _first_difference(
    first: tuple[Answer, Sequence[object]], second: tuple[Answer, Sequence[object]], same: int
) -> int | None:
    """Index of the first part in which what two answers say differs."""
    (_, one), (_, other) = first, second
    for index in range(same, min(len(one), len(other))):
        if one[index] != other[index]:
            return index
    (answer, shorter), (_, longer) = sorted((first, second), key=lambda each: len(each[1]))
    return len(shorter) if len(shorter) < len(longer) and answer.over else None
