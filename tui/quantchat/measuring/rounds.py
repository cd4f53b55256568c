"""Rounds: both sides answer the same prompts repeatedly, so that figures get intervals.

Unlike in a chat, each prompt is sent without history and with an empty KV cache, so that every TTFT
includes the prefill of the whole prompt. With the order "in-turn", one side decodes while the other
is idle. The side that begins alternates (ABBA), so that no side always gets the cooler device.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from time import monotonic

from quantchat.measuring.until_width import FIRST_CHECK, half_width, narrow_enough
from quantchat.profile.model import Generation
from quantchat.session.comparison import Comparison
from quantchat.session.conversation import Answer, Order, Turn
from quantchat.session.live_variant import LiveVariant
from quantchat.session.requests import single_prompt_request, threads_for
from quantchat.statistics.intervals import Pair
from quantchat.statistics.latency import decode_throughput

MOST_TOKENS = 10**7
"""Largest length of a prompt or an answer that a task may ask for, in tokens."""


TRIES = 3
"""How many times a turn is measured at most, if each time something disturbs it."""


@dataclass(frozen=True)
class Task:
    """One prompt to measure."""

    prompt: str
    prompt_tokens: int = 0
    """The prompt is repeated or cut to this many tokens; 0: used unchanged."""
    output_tokens: int = 0
    """Length of the answer in tokens; the end-of-sequence token is then ignored. 0: the answer may
    be as long as the generation settings allow."""


@dataclass(frozen=True)
class Plan:
    """What to measure, and how often."""

    tasks: tuple[Task, ...]
    rounds: int = 5
    warmup: int = 1
    """Number of tasks that both sides answer before the measurement; these are not measured."""
    order: Order = "in-turn"
    ignore_eos: bool = False
    """Ignore the end-of-sequence token, so that the answers of both sides are equally long."""
    until_width: float | None = None
    """End before the last round if the confidence interval is this narrow, for example 0.05 for
    ±5 %; None: measure all rounds. See `measuring.until_width`."""
    minutes: float | None = None
    """Minutes after which no further round begins; None: no limit."""

    @property
    def total(self) -> int:
        """Number of turns, including the warm-up."""
        return self.warmup + self.rounds * len(self.tasks)


@dataclass(frozen=True)
class DisturbedTurn:
    """A turn that was disturbed, and whose figures were discarded."""

    task: int
    """Index of the task, from 0."""
    round: int
    """Number of the round, from 1."""
    reason: str
    left_out: bool
    """Whether all tries were disturbed, so that the turn is missing; else it was measured again."""


@dataclass(frozen=True)
class MeasuredTurn:
    """The turn of one task in one round."""

    task: int
    """Index of the task, from 0."""
    round: int
    """Number of the round, from 1."""
    turn: Turn


def _no_context(variant: LiveVariant, answer: Answer) -> AbstractContextManager[None]:
    return nullcontext()


@contextmanager
def _undisturbed(round_number: int) -> Iterator[list[str]]:
    """Report no disturbance."""
    yield []


@dataclass
class Rounds:
    """Measures `plan` on the two sides of `comparison`, of which at least one must be READY.

    A side that is not loaded gives failed answers. Nothing else may use the sides meanwhile.

    `on_step(done, total, detail)` is called before each turn and at the end; `done` and `total`
    count turns. `around` returns a context manager for each answer that is decoded while the other
    side is idle; it can read the GPU's energy, for example. `watch` returns a context manager for
    each turn and gets the number of the round. The list that it yields has the disturbances of the
    turn. A disturbed turn is measured again, until it was measured `TRIES` times.
    """

    comparison: Comparison
    plan: Plan
    on_step: Callable[[int, int, str], None] = lambda done, total, detail: None
    around: Callable[[LiveVariant, Answer], AbstractContextManager[None]] = _no_context
    watch: Callable[[int], AbstractContextManager[list[str]]] = _undisturbed
    measured: list[MeasuredTurn] = field(default_factory=list)
    disturbed: list[DisturbedTurn] = field(default_factory=list)
    stopped: bool = False

    def __post_init__(self) -> None:
        self._began_s = 0.0
        self._half_width: float | None = None
        """Result of `half_width` after the previous round; None before the first check."""

    async def run(self) -> list[MeasuredTurn]:
        """Measure the plan; return the turns, also those with failed answers.

        After `stop`, these are the turns so far. The worker of a side that does not respond is
        ended (`LiveVariant.reason_to_end`); the other side goes on.
        """
        # Scoring of earlier answers would disturb the times, so end it.
        await self.comparison.end_scoring()
        async with self.comparison.ending_unresponsive_sides():
            await self._all_turns()
        return self.measured

    async def _all_turns(self) -> None:
        plan, total = self.plan, self.plan.total
        self._began_s = monotonic()
        done = 0
        for task, round_number in self._steps():
            if self.stopped:
                break
            name = f"round {round_number} of {plan.rounds}" if round_number else "warming up"
            self.on_step(done, total, f"{name}, prompt {task + 1} of {len(plan.tasks)}")
            await self._measure(task, round_number)
            done += 1
        # If the plan ended before its last round, report `done` as the total too, i.e. 100 %.
        self.on_step(done, total if self.stopped else done, "stopped" if self.stopped else "done")

    async def _measure(self, task: int, round_number: int) -> None:
        """Measure one turn; if it was disturbed, measure it again (see `DisturbedTurn`)."""
        for tries_left in reversed(range(TRIES if round_number else 1)):
            with self.watch(round_number) as disturbances:
                turn = await self._turn(task, round_number)
            if self.stopped or not round_number:
                return
            failed = any(answer.failure for answer in turn.answers.values())
            if not disturbances or failed:
                self.measured.append(MeasuredTurn(task, round_number, turn))
                return
            self.disturbed.append(
                DisturbedTurn(task, round_number, "; ".join(disturbances), not tries_left)
            )

    def stop(self) -> None:
        """Stop the running answers, discard them, and end the measurement."""
        self.stopped = True
        for variant in self.comparison.sides:
            variant.stop()

    def end(self) -> None:
        """End at once, and kill a worker that does not stop."""
        self.stop()
        self.comparison.end_busy_sides()

    def _steps(self) -> Iterator[tuple[int, int]]:
        """Yield (task, round) in order; round 0 is the warm-up."""
        count = len(self.plan.tasks)
        for step in range(self.plan.warmup):
            yield step % count, 0
        for round_number in range(1, self.plan.rounds + 1):
            if self._is_finished(round_number - 1):
                return
            for task in range(count):
                yield task, round_number

    def _is_finished(self, rounds: int) -> bool:
        """Return whether to end after `rounds` rounds, because of `until_width` or `minutes`."""
        plan = self.plan
        if plan.minutes is not None and rounds and monotonic() - self._began_s > 60 * plan.minutes:
            return True
        if plan.until_width is None or rounds < FIRST_CHECK:
            return False
        half, before = half_width(throughput_pairs(self.measured)), self._half_width
        self._half_width = half
        return narrow_enough(half, before, plan.until_width)

    async def _turn(self, task: int, round_number: int) -> Turn:
        plan = self.plan
        # Alternate by task and round, not by a running number: with an even number of tasks, a
        # running number would start a task with the same side in every round.
        sides = list(self.comparison.sides)
        if (task + round_number) % 2:
            sides.reverse()
        turn = Turn(next(self.comparison.turn_numbers), plan.tasks[task].prompt)
        turn.answers = {v.label: Answer(v.label, plan.order) for v in self.comparison.sides}
        if plan.order == "together":
            threads = threads_for(len(sides))
            await asyncio.gather(*(self._answer(v, turn, task, threads) for v in sides))
        else:
            for variant in sides:
                if self.stopped:
                    turn.answers[variant.label].end_unsent()
                else:
                    with self.around(variant, turn.answers[variant.label]):
                        await self._answer(variant, turn, task, threads_for(1))
        return turn

    async def _answer(self, variant: LiveVariant, turn: Turn, task: int, threads: int) -> None:
        measured_task = self.plan.tasks[task]
        settings: Generation = self.comparison.generation
        request = single_prompt_request(
            turn.number,
            measured_task.prompt,
            settings,
            threads=threads,
            max_new_tokens=measured_task.output_tokens or settings.max_new_tokens,
            ignore_eos=self.plan.ignore_eos or bool(measured_task.output_tokens),
            fresh=True,
            prompt_tokens=measured_task.prompt_tokens,
        )
        await variant.answer(request, turn.answers[variant.label])


def throughput_pairs(measured: Iterable[MeasuredTurn]) -> list[Pair]:
    """Return the decode throughput of both sides for each measured turn that has it."""
    pairs = []
    for one in measured:
        speeds = [
            decode_throughput(answer.times_ns, answer.reported_tokens)
            for answer in one.turn.answers.values()
        ]
        if len(speeds) == 2 and speeds[0] is not None and speeds[1] is not None:
            pairs.append(Pair(one.task, one.round, speeds[0], speeds[1]))
    return pairs
