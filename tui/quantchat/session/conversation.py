"""Conversations: turns of one prompt with an answer of each variant. Pure data, no processes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from quantchat.statistics.divergence import DivergenceScore
from quantchat.statistics.drafts import Drafts
from quantchat.statistics.latency import Percentiles, TurnTiming
from quantchat.statistics.surprisal import CrossPerplexity
from quantchat.system.energy import Energy
from quantchat.wire.messages import (
    Drafted,
    Failed,
    Finished,
    Generate,
    Message,
    Prefilled,
    Ready,
    Started,
    Tokens,
)
from quantchat.wire.protocol import Event
from quantchat.wire.variant import Ledger, same_vocabulary

Order = Literal["together", "in-turn"]
History = Literal["own", "left", "right"]
"""Whose answers the variants continue: each its own, or both those of the left or the right
side."""


NATURAL_ENDS = ("eos", "stop_string", "eos_or_stop_string")
"""Values of `Answer.reason` for answers that ended by themselves: at an end-of-sequence token or a
stop string."""


class AnswerState(Enum):
    """The state of an answer. The last two are final."""

    WAITING = "waiting"
    PREFILL = "prefill"
    STREAMING = "streaming"
    DONE = "done"
    FAILED = "failed"


@dataclass
class Answer:
    """One variant's answer; it grows while it streams. Times are from the worker's clock, in ns."""

    variant: str
    order: Order
    """`together` if the other variant decoded or was being prepared at the same time, else
    `in-turn`."""
    state: AnswerState = AnswerState.WAITING
    queued: bool = False
    """Whether the prompt still waits for the variant to be ready."""
    prompt_tokens: int = 0
    """Tokens of the prompt, including cached tokens."""
    cached_tokens: int = 0
    """Prompt tokens taken from the KV cache instead of being computed."""
    prefill_done: int = 0
    """Prompt tokens that prefill has computed so far, of `prefill_total`."""
    prefill_total: int = 0
    received_ns: int = 0
    """When the worker received the prompt."""
    prefilled_ns: int = 0
    """When the last prompt token was computed."""
    ids: list[int] = field(default_factory=list)
    """Ids of the output tokens."""
    pieces: list[str] = field(default_factory=list)
    """The answer's text that each token completed, parallel to `ids`; often empty."""
    times_ns: list[int] = field(default_factory=list)
    """When each token was known, parallel to `ids`."""
    reported_tokens: int | None = None
    """For a server, the number of output tokens, which the server reports only at the end; -1 until
    then (see `awaits_count`). Each entry of `ids` then stands for a chunk of text. None for a local
    model, whose worker reports each token."""
    text: str = ""
    """The answer so far: the joined pieces, at the end replaced by the worker's full decoding."""
    thoughts: str = ""
    """The model's reasoning before the answer, which is not part of the answer."""
    thought_pieces: list[str] = field(default_factory=list)
    """The reasoning text that each token completed, parallel to `pieces`; empty if there is no
    reasoning."""
    thought_tokens: int = 0
    """Output tokens of the reasoning, set at the end; -1 if there is reasoning with an unknown
    number of tokens."""
    first_answer_token: int = -1
    """Index of the first token after the reasoning, the first with text of the answer; -1 if there
    is none yet."""
    raw: str = ""
    """Reasoning and answer as the model wrote them, with the markers of the reasoning; empty if
    equal to `text`."""
    reason: str = ""
    """Why the answer ended: a reason of `Finished`, or `failed`; empty while it runs."""
    failure: Failed | None = None
    ledger: Ledger | None = None
    """The memory ledger at the end of the answer."""
    drafts: Drafts | None = None
    """The counts of speculative decoding; None without a draft, or until the answer is over."""
    energy: Energy | None = None
    """The GPU's energy for the answer, if measured."""
    cross_perplexities: list[CrossPerplexity] = field(default_factory=list)
    """The answer's perplexity under each variant, if computed."""
    request: Generate | None = None
    """The request that was sent to the worker; None while the answer waits."""
    ran_on: Ready | None = None
    """What the worker reported about the loaded model that wrote the answer. It is stored here
    because the variant may be ended or reloaded before a snapshot is saved."""

    @property
    def output_tokens(self) -> int:
        """Number of output tokens so far; -1 if a server has not reported it."""
        return len(self.ids) if self.reported_tokens is None else self.reported_tokens

    @property
    def output_pieces(self) -> list[str]:
        """The text that each token completed, of the reasoning or of the answer."""
        if not self.thought_pieces:
            return self.pieces
        return [a + b for a, b in zip(self.thought_pieces, self.pieces, strict=True)]

    @property
    def thinking_tokens(self) -> int:
        """Output tokens of the reasoning so far; -1 if their number is unknown."""
        if self.over or self.from_server:
            return self.thought_tokens or -bool(self.thoughts)
        if not self.thoughts:
            return 0
        return len(self.ids) if self.first_answer_token < 0 else self.first_answer_token

    def thinks_at(self, token: int) -> bool:
        """Return whether output token `token` belongs to the reasoning."""
        return thinks_at(self.thought_pieces, self.pieces, token)

    @property
    def from_server(self) -> bool:
        """Whether the answer comes from a server, in chunks of several tokens without ids."""
        return self.reported_tokens is not None

    @property
    def awaits_count(self) -> bool:
        """Whether a server has not reported the answer's number of tokens yet."""
        return self.reported_tokens is not None and self.reported_tokens < 0

    @property
    def over(self) -> bool:
        """Whether the answer is complete or failed."""
        return self.state in (AnswerState.DONE, AnswerState.FAILED)

    @property
    def context_full(self) -> bool:
        """Whether the answer ended, or could not start, because the context is full."""
        return self.reason == "context" or (
            self.failure is not None and self.failure.kind == "context_full"
        )

    def grow(self, event: Event, *, from_server: bool) -> None:
        """Add an event of the worker.

        `from_server`: the answer comes from a server, which reports the number of tokens at the
        end and not each token.
        """
        match event:
            case Started():
                self.state = AnswerState.PREFILL
                # Set -1 at the start, because the server reports no number if the answer is cut
                # off.
                self.reported_tokens = -1 if from_server else None
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
                if self.first_answer_token < 0 and any(event.pieces):
                    within = next(i for i, piece in enumerate(event.pieces) if piece)
                    self.first_answer_token = len(self.ids) + within
                self.ids += event.ids
                self.pieces += event.pieces
                self.times_ns += event.times_ns
                self.text += "".join(event.pieces)
                self.thoughts += "".join(event.thoughts)
            case Drafted():
                self.drafts = Drafts(event.drafted, event.accepted, event.steps)
            case Finished():
                self.text, self.thoughts, self.raw = event.text, event.thoughts, event.raw
                self.thought_tokens = event.thought_tokens
                self.reason = event.reason
                if event.chunks >= 0:
                    self.reported_tokens = event.output_tokens
                    self.prompt_tokens = max(0, event.prompt_tokens)
                    self.cached_tokens = event.cached_tokens
                self.state = AnswerState.DONE
            case Failed():
                self.fail(event)

    def end_unsent(self) -> None:
        """End the answer because it was stopped before it was requested."""
        self.state, self.reason = AnswerState.DONE, "stop"

    def fail(self, failure: Failed) -> None:
        """End the answer with `failure`; its text so far stays."""
        self.failure = failure
        self.reason = "failed"
        self.state = AnswerState.FAILED

    def timing(self, itl: Percentiles | None = None) -> TurnTiming:
        """Return latency and throughput so far.

        `itl` has the percentiles of the inter-token latency, if they are already computed.
        """
        return TurnTiming.of(
            received_ns=self.received_ns,
            times_ns=self.times_ns,
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
            prefilled_ns=self.prefilled_ns,
            tokens=self.reported_tokens,
            itl=itl,
            first_answer_token=self.first_answer_token if self.thoughts else 0,
        )


@dataclass
class Turn:
    """One prompt and the answers to it, by variant label."""

    number: int
    prompt: str
    answers: dict[str, Answer] = field(default_factory=dict)
    divergence: DivergenceScore | None = None
    """The probabilities of the two tokens at which the answers diverge; None until computed."""
    not_sent: dict[str, str] = field(default_factory=dict)
    """Why a shown variant was not asked, by label."""
    history_of: str = ""
    """Label of the variant whose earlier answers both continued; empty: each its own."""
    others: list[dict[str, Answer]] = field(default_factory=list)
    """Other answers to the same prompt, the oldest first, of a turn that was regenerated."""
    shown_version: int = 0
    """How many of `others` are older than `answers`."""

    @property
    def versions(self) -> list[dict[str, Answer]]:
        """All answers to the prompt, the oldest first."""
        return [
            *self.others[: self.shown_version],
            self.answers,
            *self.others[self.shown_version :],
        ]

    def show_version(self, number: int) -> bool:
        """Show version `number` (from 0) of the answers; return False if it does not exist."""
        versions = self.versions
        if not 0 <= number < len(versions) or number == self.shown_version:
            return False
        self.answers = versions.pop(number)
        self.others, self.shown_version, self.divergence = versions, number, None
        return True

    @property
    def over(self) -> bool:
        """Whether each answer is over."""
        return all(answer.over for answer in self.answers.values())


@dataclass
class Conversation:
    """The turns so far. A non-empty `system` is sent as system prompt."""

    system: str = ""
    turns: list[Turn] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    """Numbers for turns. A worker must never get the same number twice: a `Stop` names the turn by
    its number, and one that arrives late must not stop another turn."""

    def begin(self, prompt: str, answers: list[Answer]) -> Turn:
        """Add a turn for `prompt` with the (waiting) `answers`."""
        turn = Turn(next(self.numbers), prompt, {answer.variant: answer for answer in answers})
        self.turns.append(turn)
        return turn

    def messages_for(self, variant: str, turn: Turn) -> list[Message]:
        """Return the chat for `variant` in `turn`: its own earlier answers and the new prompt.

        If the turn has one history for both, the earlier answers are those of `turn.history_of`.
        Turns that this variant did not answer (not shown, or failed) are left out.
        """
        author = turn.history_of or variant
        messages = [Message("system", self.system)] if self.system else []
        for earlier in self.turns:
            if earlier is turn:
                break
            answer = earlier.answers.get(author)
            if answer is not None and answer.text:
                messages.append(Message("user", earlier.prompt))
                messages.append(Message("assistant", answer.text, answer.thoughts))
        messages.append(Message("user", turn.prompt))
        return messages

    @property
    def extent(self) -> tuple[tuple[int, int, bool], ...]:
        """A value that changes whenever the conversation changes."""
        return tuple(
            (turn.number, len(answer.ids), answer.over)
            for turn in self.turns
            for version in turn.versions
            for answer in version.values()
        )

    def drop_last(self) -> Turn | None:
        """Remove and return the last turn; None if there is none."""
        return self.turns.pop() if self.turns else None

    def drop_oldest(self) -> Turn | None:
        """Remove and return the first turn; None if there is none."""
        return self.turns.pop(0) if self.turns else None


def thinks_at(thoughts: Sequence[str], answer: Sequence[str], token: int) -> bool:
    """Return whether the text that starts with output token `token` is part of the reasoning.

    `thoughts` and `answer` are the pieces of both; `thoughts` is empty if there is no reasoning.
    """
    pairs = zip(thoughts[token:], answer[token:], strict=False)
    return next((bool(thought) for thought, piece in pairs if thought or piece), False)


def same_tokenizer(first: Answer, second: Answer) -> bool:
    """Return whether the token ids of two answers are comparable; False if one is unknown."""
    if first.ran_on is None or second.ran_on is None:
        return False
    return same_vocabulary(first.ran_on.model_info, second.ran_on.model_info)


def divergence_point(first: Answer, second: Answer, *, same: int = 0) -> int | None:
    """Return the index of the first output token at which two answers differ; None if none differs.

    If the shorter answer is complete and the longer one continues it, this is the length of the
    shorter one. The first `same` tokens are known to be equal. Compares token ids, so call it only
    if `same_tokenizer` returns True.
    """
    return _first_difference((first, first.ids), (second, second.ids), same)


def text_divergence(first: Answer, second: Answer, *, same: int = 0) -> int | None:
    """Return the index of the first character at which two answers differ; None if none differs.

    Use this if the token ids cannot be compared. The first `same` characters are known to be equal.
    """
    return _first_difference((first, first.text), (second, second.text), same)


def _first_difference(
    first: tuple[Answer, Sequence[object]], second: tuple[Answer, Sequence[object]], same: int
) -> int | None:
    """Return the index of the first token or character at which two answers differ."""
    (_, one), (_, other) = first, second
    for index in range(same, min(len(one), len(other))):
        if one[index] != other[index]:
            return index
    (answer, shorter), (_, longer) = sorted((first, second), key=lambda each: len(each[1]))
    return len(shorter) if len(shorter) < len(longer) and answer.over else None
