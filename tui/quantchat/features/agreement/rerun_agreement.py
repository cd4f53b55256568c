"""A against A: how early a variant parts from itself when only the circumstances are others.

Greedy decoding repeats itself only where the same sums are taken in the same order. How many
threads there are, what of the prompt was cached, and how many rows are computed at once decide that
order. So the first difference between A and B means little if it comes no earlier than A's from
itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from quantchat.session.comparison import Comparison
from quantchat.session.conversation import Answer, Turn, divergence_point, text_divergence
from quantchat.session.live_variant import LiveVariant
from quantchat.session.requests import lone_request, threads_for
from quantchat.session.teacher_forcing import score_tokens_request
from quantchat.wire.messages import END

AGAIN = "in turn, again"
TOGETHER = "together with the other"
CACHED = "with the prompt in the cache"
AT_ONCE = "all tokens at once"
BATCH = "all tokens at once, batch of 2"
CONDITIONS = (AGAIN, TOGETHER, CACHED, AT_ONCE, BATCH)


@dataclass(frozen=True)
class AgreementResult:
    """How far one answer came under one condition as it did in turn with an empty cache."""

    variant: str
    condition: str
    prompt: int
    tokens: int
    """Length of the answer that is compared with."""
    point: int | None
    """Index of the first token that is another one; None where none is."""
    problem: str = ""
    unit: str = "token"
    """What is counted: of a server, whose tokens are not known, `character`."""


@dataclass
class AgreementCheck:
    """Checks the pair that `comparison` shows on `prompts`; both must be READY and stay idle else.

    `on_step(done, total, detail)` is told before each prompt and condition, and at the end.
    """

    comparison: Comparison
    prompts: tuple[str, ...]
    on_step: Callable[[int, int, str], None] = lambda done, total, detail: None
    found: list[AgreementResult] = field(default_factory=list)
    stopped: bool = False

    async def run(self) -> list[AgreementResult]:
        """Check; returns what was found, also after `stop`."""
        await self.comparison.quiet()
        async with self.comparison.silent_sides_ended():
            await self._all_steps()
        return self.found

    async def _all_steps(self) -> None:
        total = len(self.prompts) * (len(CONDITIONS) + 1)
        for done, (prompt, condition) in enumerate(self._steps()):
            if self.stopped:
                break
            named = condition or "in turn"
            self.on_step(done, total, f"prompt {prompt + 1} of {len(self.prompts)}: {named}")
            if not condition:
                base = await self._in_turn(prompt)
            else:
                self.found += await self._under(condition, prompt, base)
        self.on_step(total, total, "stopped" if self.stopped else "done")

    def stop(self) -> None:
        """End soon; what was found until now is kept."""
        self.stopped = True
        for variant in self.comparison.sides:
            variant.stop()
            variant.preempt()

    def end(self) -> None:
        """End at once: a worker that does not stop is ended."""
        self.stop()
        self.comparison.end_at_work()

    def _steps(self) -> Iterator[tuple[int, str]]:
        for prompt in range(len(self.prompts)):
            yield prompt, ""
            for condition in CONDITIONS:
                yield prompt, condition

    async def _under(self, condition: str, prompt: int, base: Turn) -> list[AgreementResult]:
        if condition in (AT_ONCE, BATCH):
            rows = 2 if condition == BATCH else 1
            return [
                await self._read(variant, condition, prompt, base.answers[variant.label], rows)
                for variant in self.comparison.sides
                if not self.stopped
            ]
        if condition == TOGETHER:
            turn = self._turn(prompt)
            await asyncio.gather(
                *(self._ask(one, turn, threads_for(2)) for one in self.comparison.sides)
            )
        elif condition == CACHED:
            await self._in_turn(prompt, fresh=False, most=1)
            turn = await self._in_turn(prompt, fresh=False)
        else:
            turn = await self._in_turn(prompt)
        if self.stopped:
            return []
        return [_compared(condition, prompt, base.answers[a.variant], a) for a in _answers(turn)]

    async def _read(
        self, variant: LiveVariant, condition: str, prompt: int, answer: Answer, rows: int
    ) -> AgreementResult:
        """Where the likeliest token is another one than was said, all being given at once."""
        if not answer.ids:
            return AgreementResult(variant.label, condition, prompt, 0, None, "no answer")
        said = [*answer.ids, *([END] if answer.reason == "eos" else [])]
        read = await variant.score_tokens(score_tokens_request(answer, said, batch=rows))
        point = next((n for n, rank in enumerate(read.ranks[: len(answer.ids)]) if rank), None)
        return AgreementResult(
            variant.label, condition, prompt, len(answer.ids), point, read.problem
        )

    # ------------------------------------------------------------ answers

    def _turn(self, prompt: int) -> Turn:
        answers = {v.label: Answer(v.label, "in-turn") for v in self.comparison.sides}
        return Turn(next(self.comparison.turn_numbers), self.prompts[prompt], answers)

    async def _in_turn(self, prompt: int, *, fresh: bool = True, most: int = 0) -> Turn:
        turn = self._turn(prompt)
        for variant in self.comparison.sides:
            if not self.stopped:
                await self._ask(variant, turn, threads_for(1), fresh=fresh, most=most)
        return turn

    async def _ask(
        self, variant: LiveVariant, turn: Turn, threads: int, *, fresh: bool = True, most: int = 0
    ) -> None:
        settings = self.comparison.generation.model_copy(update={"temperature": 0.0})
        request = lone_request(
            turn.number,
            turn.prompt,
            settings,
            threads=threads,
            fresh=fresh,
            max_new_tokens=most or settings.max_new_tokens,
        )
        await variant.answer(request, turn.answers[variant.label])


def _answers(turn: Turn) -> list[Answer]:
    return list(turn.answers.values())


def _compared(condition: str, prompt: int, base: Answer, answer: Answer) -> AgreementResult:
    failure = answer.failure or base.failure
    served = base.in_chunks
    apart = text_divergence if served else divergence_point
    return AgreementResult(
        answer.variant,
        condition,
        prompt,
        len(base.text if served else base.ids),
        None if failure else apart(base, answer),
        failure.reason if failure else "",
        "character" if served else "token",
    )
