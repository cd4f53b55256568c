"""A session of blind votes: both variants answer each prompt, on random sides."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

from quantchat.session.comparison import Comparison
from quantchat.session.conversation import Answer, Turn
from quantchat.session.live_variant import LiveVariant
from quantchat.session.requests import single_prompt_request, threads_for
from quantchat.statistics.votes import Choice


@dataclass(frozen=True)
class VotePlan:
    """The prompts of a vote, and how the answers are shown."""

    prompts: tuple[str, ...]
    seed: int
    """Decides which side each variant is on; the same seed gives the same sides."""
    paced: bool = True
    """Whether both answers are shown while they stream, at the same speed; otherwise they are shown
    when both are complete."""


@dataclass
class Ballot:
    """One prompt, its two answers by side, and the choice."""

    turn: Turn
    left: str
    right: str
    """Labels of the variants on the two sides, which must not be shown before the vote."""
    choice: Choice | None = None
    seen: bool = False
    """Whether the labels were shown before the choice, so that the vote does not count."""

    @property
    def answers(self) -> tuple[Answer, Answer]:
        """The left and the right answer."""
        return self.turn.answers[self.left], self.turn.answers[self.right]

    @property
    def failed(self) -> bool:
        """Whether an answer failed, so that there is nothing to vote on."""
        return any(answer.failure is not None for answer in self.answers)

    @property
    def waits(self) -> bool:
        """Whether one answer is complete and fully shown while the other still runs."""
        first, second = self.answers
        return not self.turn.over and any(
            one.over and len(one.text) <= len(other.text)
            for one, other in ((first, second), (second, first))
        )

    def visible_texts(self, *, paced: bool) -> tuple[str, str]:
        """Return the text to show now, left and right, without revealing which side is faster.

        With `paced`, show the same number of characters of both: the number that the shorter one
        has. Without, show nothing until both are complete. The rest of the longer answer comes at
        the end, because streaming it would show which side had been waiting, and so was faster.
        Characters are counted and not chunks or tokens, whose size could reveal a server or another
        tokenizer.
        """
        first, second = (answer.text for answer in self.answers)
        if self.turn.over:
            return first, second
        count = min(len(first), len(second)) if paced else 0
        return first[:count], second[:count]


@dataclass
class Voting:
    """Sends the prompts of `plan` to the pair that `comparison` shows, each as a new chat."""

    comparison: Comparison
    plan: VotePlan
    ballots: list[Ballot] = field(default_factory=list)
    _asking: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        self.paced = self.plan.paced
        self._lot = random.Random(self.plan.seed)  # noqa: S311  # must be repeatable, not secret

    @property
    def done(self) -> bool:
        """Whether all prompts were sent."""
        return len(self.ballots) == len(self.plan.prompts)

    @property
    def voted(self) -> list[Ballot]:
        """The ballots with a choice."""
        return [ballot for ballot in self.ballots if ballot.choice is not None]

    def put(self) -> Ballot:
        """Send the next prompt; return its ballot, whose answers then stream in."""
        prompt = self.plan.prompts[len(self.ballots)]
        labels = [variant.label for variant in self.comparison.sides]
        if self._lot.random() < 0.5:
            labels.reverse()
        answers = {v.label: Answer(v.label, "together") for v in self.comparison.sides}
        turn = Turn(next(self.comparison.turn_numbers), prompt, answers)
        self.ballots.append(Ballot(turn, labels[0], labels[1]))
        self._asking = asyncio.ensure_future(self._answer(turn))
        return self.ballots[-1]

    async def close(self) -> None:
        """Stop the running answers and wait for their end."""
        if self._asking is not None and not self._asking.done():
            for variant in self.comparison.sides:
                variant.stop()
            await asyncio.wait([self._asking])

    async def _answer(self, turn: Turn) -> None:
        await self.comparison.end_scoring()
        await asyncio.gather(*(self._ask(variant, turn) for variant in self.comparison.sides))

    async def _ask(self, variant: LiveVariant, turn: Turn) -> None:
        settings = self.comparison.generation
        request = single_prompt_request(
            turn.number, turn.prompt, settings, threads=threads_for(2), fresh=True
        )
        await variant.answer(request, turn.answers[variant.label])
