"""Measure a variant's agreement with itself: where a repeated answer diverges from the first one.

Greedy decoding repeats an answer only if floating-point sums are added in the same order. That
order depends on the number of threads, the cached part of the prompt and the batch size. If a rerun
of variant A already diverges at token 20, then a divergence of A and B at token 25 says nothing
about B.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from quantchat.session.comparison import Comparison
from quantchat.session.conversation import Answer, Turn, divergence_point, text_divergence
from quantchat.session.live_variant import LiveVariant
from quantchat.session.requests import single_prompt_request, threads_for
from quantchat.session.teacher_forcing import score_tokens_request
from quantchat.wire.messages import END

REPEATED = "one at a time, again"
TOGETHER = "together"
CACHED = "prompt in the KV cache"
TEACHER_FORCING = "teacher forcing"
TEACHER_FORCING_BATCH = "teacher forcing, batch of 2"
CONDITIONS = (REPEATED, TOGETHER, CACHED, TEACHER_FORCING, TEACHER_FORCING_BATCH)
"""The conditions under which each answer is repeated. Tables print these texts."""


@dataclass(frozen=True)
class AgreementResult:
    """Where an answer under one condition diverges from the baseline answer.

    The baseline answer was decoded one variant at a time, with an empty KV cache.
    """

    variant: str
    condition: str
    prompt: int
    """Index of the prompt, from 0."""
    tokens: int
    """Length of the baseline answer, in `unit`."""
    point: int | None
    """Index of the first token or character that differs; None if all are equal, or if there is no
    result."""
    problem: str = ""
    """Why there is no result; empty if there is one."""
    unit: str = "token"
    """`character` if two texts of a server are compared, because a server reports no token ids;
    otherwise `token`."""


@dataclass
class AgreementCheck:
    """Reruns `prompts` on the two shown variants of `comparison` and compares the answers.

    Both variants must be READY and idle. Calls `on_step(done, total, detail)` before each step
    and at the end; a step is the baseline answer to a prompt, or one condition.
    """

    comparison: Comparison
    prompts: tuple[str, ...]
    on_step: Callable[[int, int, str], None] = lambda done, total, detail: None
    results: list[AgreementResult] = field(default_factory=list)
    stopped: bool = False

    async def run(self) -> list[AgreementResult]:
        """Run the check; return the results so far, also after `stop`."""
        await self.comparison.end_scoring()
        async with self.comparison.ending_unresponsive_sides():
            await self._all_steps()
        return self.results

    async def _all_steps(self) -> None:
        total = len(self.prompts) * (len(CONDITIONS) + 1)
        for done, (prompt, condition) in enumerate(self._steps()):
            if self.stopped:
                break
            named = condition or "one at a time"
            self.on_step(done, total, f"prompt {prompt + 1} of {len(self.prompts)}: {named}")
            if not condition:
                base = await self._in_turn(prompt)
            else:
                self.results += await self._run_condition(condition, prompt, base)
        self.on_step(total, total, "stopped" if self.stopped else "done")

    def stop(self) -> None:
        """Cancel the running requests and the check; `results` keeps what was found so far."""
        self.stopped = True
        for variant in self.comparison.sides:
            variant.stop()
            variant.preempt()

    def end(self) -> None:
        """Stop, and end the workers that are still decoding."""
        self.stop()
        self.comparison.end_busy_sides()

    def _steps(self) -> Iterator[tuple[int, str]]:
        for prompt in range(len(self.prompts)):
            yield prompt, ""
            for condition in CONDITIONS:
                yield prompt, condition

    async def _run_condition(
        self, condition: str, prompt: int, base: Turn
    ) -> list[AgreementResult]:
        if condition in (TEACHER_FORCING, TEACHER_FORCING_BATCH):
            rows = 2 if condition == TEACHER_FORCING_BATCH else 1
            return [
                await self._force(variant, condition, prompt, base.answers[variant.label], rows)
                for variant in self.comparison.sides
                if not self.stopped
            ]
        if condition == TOGETHER:
            turn = self._turn(prompt)
            await asyncio.gather(
                *(self._ask(one, turn, threads_for(2)) for one in self.comparison.sides)
            )
        elif condition == CACHED:
            await self._in_turn(prompt, fresh=False, max_tokens=1)
            turn = await self._in_turn(prompt, fresh=False)
        else:
            turn = await self._in_turn(prompt)
        if self.stopped:
            return []
        return [_compared(condition, prompt, base.answers[a.variant], a) for a in _answers(turn)]

    async def _force(
        self, variant: LiveVariant, condition: str, prompt: int, answer: Answer, rows: int
    ) -> AgreementResult:
        """Find the first token of `answer` that is not the most likely one, by teacher forcing."""
        served = answer.from_server
        if not (answer.text if served else answer.ids):
            return AgreementResult(variant.label, condition, prompt, 0, None, "no answer")
        if served and answer.thoughts:
            problem = "the tokens of a server's thoughts are not known"
            return AgreementResult(variant.label, condition, prompt, 0, None, problem)
        tokens = [*answer.ids, *([END] if answer.reason == "eos" else [])]
        request = (
            score_tokens_request(answer, [], batch=rows, text=answer.text)
            if served
            else score_tokens_request(answer, tokens, batch=rows)
        )
        scored = await variant.score_tokens(request)
        count = len(scored.ranks) if served else len(answer.ids)
        point = next((n for n, rank in enumerate(scored.ranks[:count]) if rank), None)
        return AgreementResult(variant.label, condition, prompt, count, point, scored.problem)

    # ------------------------------------------------------------ answers

    def _turn(self, prompt: int) -> Turn:
        answers = {v.label: Answer(v.label, "in-turn") for v in self.comparison.sides}
        return Turn(next(self.comparison.turn_numbers), self.prompts[prompt], answers)

    async def _in_turn(self, prompt: int, *, fresh: bool = True, max_tokens: int = 0) -> Turn:
        turn = self._turn(prompt)
        for variant in self.comparison.sides:
            if not self.stopped:
                await self._ask(variant, turn, threads_for(1), fresh=fresh, max_tokens=max_tokens)
        return turn

    async def _ask(
        self,
        variant: LiveVariant,
        turn: Turn,
        threads: int,
        *,
        fresh: bool = True,
        max_tokens: int = 0,
    ) -> None:
        settings = self.comparison.generation.model_copy(update={"temperature": 0.0})
        request = single_prompt_request(
            turn.number,
            turn.prompt,
            settings,
            threads=threads,
            fresh=fresh,
            max_new_tokens=max_tokens or settings.max_new_tokens,
        )
        await variant.answer(request, turn.answers[variant.label])


def _answers(turn: Turn) -> list[Answer]:
    return list(turn.answers.values())


def _compared(condition: str, prompt: int, base: Answer, answer: Answer) -> AgreementResult:
    failure = answer.failure or base.failure
    served = base.from_server
    diverges_at = text_divergence if served else divergence_point
    return AgreementResult(
        answer.variant,
        condition,
        prompt,
        len(base.text if served else base.ids),
        None if failure else diverges_at(base, answer),
        failure.reason if failure else "",
        "character" if served else "token",
    )
