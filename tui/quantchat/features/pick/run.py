"""Run a pick: load one variant after the other, measure and score it, decide.

In a visit, a variant is loaded, its speed is measured, and its worker is ended. A first pass visits
every variant. Time that is left is used for further visits that can change the decision: to the
best variant, to variants not shown to differ from it, and to variants whose speed limit is
undecided. The variant with the fewest rounds comes first.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from time import monotonic

from quantchat.checkpoints.provider import CheckpointProvider
from quantchat.daemon_thread import to_daemon_thread
from quantchat.errors import ModelsFailed, UserError
from quantchat.features.pick.decide import Candidate, decide
from quantchat.features.pick.plan import (
    PickPlan,
    PlannedCandidate,
    plan_candidates,
    scorable,
    sub_profile,
)
from quantchat.features.pick.record import candidates, snapshot_of
from quantchat.features.pick.state import CandidateState, Store
from quantchat.host.signals import on_signals
from quantchat.host.worker_process import StartWorker, start_worker
from quantchat.measuring.evaluating import Evaluating
from quantchat.measuring.measurement import Measurement
from quantchat.measuring.record import record_measurement
from quantchat.measuring.scoring import Scoring
from quantchat.profile.model import AnyVariant, Profile
from quantchat.session.comparison import Comparison
from quantchat.session.live_variant import LiveVariant
from quantchat.session.model_jobs import ModelJobs, OnModel
from quantchat.session.runner import loaded_comparison
from quantchat.snapshot.pick import PickRecord
from quantchat.snapshot.schema import Snapshot
from quantchat.system.sampler import DeviceSampler
from quantchat.wire.messages import Progress

MOST_VISITS = 10
"""Most visits to a variant, however much time is left."""

STOPPED = "stopped before the end; the same command continues"
OUT_OF_TIME = "the time was used up before everything was measured; the same command continues"


class Picking:
    """Measures the variants of `profile` by `plan`, and saves the results in `store`."""

    def __init__(
        self,
        profile: Profile,
        plan: PickPlan,
        store: Store,
        *,
        provider: CheckpointProvider,
        start: StartWorker = start_worker,
        on_model: OnModel = lambda label, progress: None,
        on_variant: Callable[[LiveVariant], None] = lambda variant: None,
        on_step: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_step` is called after each step, which may change `record`."""
        self._profile, self._plan, self._store = profile, plan, store
        self._provider, self._start = provider, start
        self._on_model, self._on_variant, self._on_step = on_model, on_variant, on_step
        self._sampler = DeviceSampler()
        self._jobs = ModelJobs(provider, start, on_model)
        self._state = store.load()
        self._planned: list[PlannedCandidate] = []
        self._deadline = monotonic() + 60 * plan.minutes if plan.minutes is not None else None
        self._measurement: Measurement | None = None
        self._task: asyncio.Task[None] | None = None
        self._why_stopped = ""
        self._scoring: Scoring | None = None
        if plan.score is not None:
            scored = sub_profile(profile, scorable(profile))
            self._scoring = Scoring(scored, plan.score, store.folder, self._jobs)
            if self._state.score is not None:
                self._scoring.restore(self._state.score)
        self._evaluating: Evaluating | None = None
        if plan.tasks is not None:
            self._evaluating = Evaluating(
                sub_profile(profile, scorable(profile)), plan.tasks, str(store.folder), self._jobs
            )

    # ------------------------------------------------------------ results

    @property
    def record(self) -> PickRecord:
        """The decision from what is measured so far. Computing it may take seconds."""
        score = self._plan.score
        reference = score.reference.label if score else ""
        return decide(self._candidates(), self._plan.limits, reference, self._why_stopped)

    def snapshot(self) -> Snapshot:
        """Return a snapshot of everything measured so far, with the decision."""
        return snapshot_of(self._profile, self._plan, self._state, self.record, self._sampler)

    def _candidates(self) -> list[Candidate]:
        return candidates(self._profile, self._plan, self._planned, self._state)

    # ------------------------------------------------------------ running

    async def run(self) -> None:
        """Measure until everything is measured and decided, time is used up, or `stop` is called.

        Raises ModelsFailed if no variant could be measured.
        """
        self._task = asyncio.ensure_future(self._measure_all())
        try:
            await self._task
        except asyncio.CancelledError:
            if not self._why_stopped:  # the task of the caller was cancelled
                raise
        if not self._why_stopped:
            self._raise_if_all_failed()

    def stop(self) -> None:
        """Stop soon, and keep what was measured."""
        self._why_stopped = STOPPED
        if self._measurement is not None:
            self._measurement.stop()
        elif self._task is not None:
            self._task.cancel()

    def end(self) -> None:
        """End at once; end the running worker too if it does not stop."""
        self._why_stopped = STOPPED
        if self._measurement is not None:
            self._measurement.end()
        if self._task is not None:
            self._task.cancel()

    def close(self) -> None:
        """Close the sampler; call this after `snapshot`."""
        self._sampler.close()

    @property
    def finished(self) -> bool:
        """Whether everything was measured, so that the saved state can be removed."""
        return not self._why_stopped

    async def _measure_all(self) -> None:
        sample = self._sampler.sample()
        self._planned = await to_daemon_thread(
            lambda: plan_candidates(self._profile, self._plan, sample)
        )
        self._on_step()
        await self._score_reference()
        for one in self._planned:
            if one.dropped or self._state_of(one.spec).failed:
                continue
            await self._first_visit(one.spec)
            await self._measure_quality(one.spec)
            self._on_model(one.spec.label, None)
        await self._decide_more()

    def _raise_if_all_failed(self) -> None:
        states = [self._state_of(spec) for spec in self._profile.variants]
        if any(state.turns for state in states):
            return
        record = self.record
        reasons = [f"{one.label}: {one.dropped}" for one in record.candidates if one.dropped]
        raise ModelsFailed(reasons[0] if reasons else "no variant could be measured")

    def _time_left(self) -> bool:
        """Return whether another step may begin; if not, set `_why_stopped`."""
        if self._why_stopped:
            return False
        if self._deadline is not None and monotonic() >= self._deadline:
            self._why_stopped = OUT_OF_TIME
            return False
        return True

    # ------------------------------------------------------------ speed

    async def _first_visit(self, spec: AnyVariant) -> None:
        missing = self._plan.speed.rounds - self._state_of(spec).rounds
        if missing > 0 and self._time_left():
            await self._visit(spec, missing)

    async def _decide_more(self) -> None:
        """Visit variants again as long as there is time and something to decide."""
        while self._deadline is not None and monotonic() < self._deadline and self._time_left():
            record = await asyncio.to_thread(lambda: self.record)
            label = next(self._open_questions(record), None)
            if label is None:
                return
            spec = next(one for one in self._profile.variants if one.label == label)
            await self._visit(spec, self._plan.speed.rounds)
            self._on_model(label, None)

    def _open_questions(self, record: PickRecord) -> Iterator[str]:
        """Yield the variants whose next visit may change the decision, the least measured first."""
        wanted = set()
        for one in record.candidates:
            if any(limit.more_rounds for limit in one.limits):
                wanted.add(one.label)
        if record.limits.prefer == "fastest":
            tied = [one.other for one in record.comparisons if not one.difference_shown]
            wanted.update([record.best, *tied] if tied else [])
        most = MOST_VISITS * self._plan.speed.rounds
        measured = [(self._state.candidates[label].rounds, label) for label in wanted]
        yield from (label for rounds, label in sorted(measured) if rounds < most)

    async def _visit(self, spec: AnyVariant, rounds: int) -> None:
        """Load `spec`, measure `rounds` more rounds, and save them."""
        comparison = Comparison(
            sub_profile(self._profile, [spec]), provider=self._provider, start=self._start
        )
        before = self._state_of(spec)
        plan = replace(self._plan.speed, rounds=rounds)

        def step(done: int, total: int, detail: str) -> None:
            self._on_model(spec.label, Progress("measuring", done, total, detail))

        measurement = Measurement(comparison, plan, self._sampler, step)
        try:
            async with loaded_comparison(comparison, on_variant=self._on_loading):
                self._measurement = measurement
                await measurement.run()
                found = record_measurement(comparison, self._sampler, measurement)
        except (ModelsFailed, UserError, OSError) as error:
            self._keep(spec, failed=str(error))
            return
        finally:
            self._measurement = None
        failures = [answer.failure for turn in found.turns for answer in turn.answers]
        broken = next((one.reason for one in failures if one is not None), "")
        turns = [
            turn.model_copy(update={"round": (turn.round or 0) + before.rounds})
            for turn in found.turns
            if all(answer.state == "done" for answer in turn.answers)
        ]
        measured = found.measurement
        self._keep(
            spec,
            variant=found.variants[0],
            turns=[*before.turns, *turns],
            flags=[*before.flags, *(measured.flags if measured else [])],
            samples=[*before.samples, *(measured.samples if measured else [])],
            failed=broken if broken and not turns else before.failed,
        )

    def _on_loading(self, variant: LiveVariant) -> None:
        """Report how far a variant is loaded, but not its state after each answer."""
        if self._measurement is None:
            self._on_variant(variant)

    # ------------------------------------------------------------ quality

    async def _score_reference(self) -> None:
        scoring, plan = self._scoring, self._plan
        if scoring is None or plan.score is None or not self._time_left():
            return
        reference = plan.score.reference
        if not scoring.is_scored(reference.label):
            await scoring.score("reference", reference)
            self._scored(scoring)
        if self._evaluating is not None and self._state.reference_evaluated is None:
            if self._time_left():
                done = await self._evaluating.evaluate(reference, "reference")
                self._update(reference_evaluated=done, harness=self._evaluating.harness)
            self._on_model(reference.label, None)

    async def _measure_quality(self, spec: AnyVariant) -> None:
        """Score `spec` and run the tasks on it, if there is time.

        If the pick has a time limit, a variant that is already shown to miss one of the limits for
        candidates is left out.
        """
        if self._state_of(spec).failed or spec not in scorable(self._profile):
            return
        scoring, plan = self._scoring, self._plan
        if scoring is None or plan.score is None or spec is plan.score.reference:
            return
        if self._deadline is not None and await self._misses_a_limit(spec):
            return
        failed = self._state.score is None or self._state.score.storage is None
        if not failed and not scoring.is_scored(spec.label) and self._time_left():
            await scoring.score("variant", spec)
            self._scored(scoring)
        unasked = self._evaluating is not None and self._state_of(spec).evaluated is None
        if self._evaluating is not None and unasked and self._time_left():
            done = await self._evaluating.evaluate(spec, "variant")
            self._update(harness=self._evaluating.harness)
            self._keep(spec, evaluated=done)

    async def _misses_a_limit(self, spec: AnyVariant) -> bool:
        record = await asyncio.to_thread(lambda: self.record)
        found = record.of(spec.label)
        return found is not None and found.misses_limit

    def _scored(self, scoring: Scoring) -> None:
        self._update(score=scoring.record)

    # ------------------------------------------------------------ state

    def _state_of(self, spec: AnyVariant) -> CandidateState:
        return self._state.candidates.get(spec.label, CandidateState())

    def _keep(self, spec: AnyVariant, **changes: object) -> None:
        state = self._state_of(spec).model_copy(update=changes)
        self._update(candidates={**self._state.candidates, spec.label: state})

    def _update(self, **changes: object) -> None:
        self._state = self._state.model_copy(update=changes)
        self._store.save(self._state)
        self._on_step()


async def pick(picking: Picking) -> Snapshot:
    """Run `picking` to its end; return the snapshot. Raises as `Picking.run` does.

    SIGTERM, SIGHUP and Ctrl+C stop it. Raises KeyboardInterrupt if it was stopped before anything
    was measured.
    """
    with contextlib.closing(picking):
        with on_signals(picking.stop, picking.end):
            await picking.run()
        snapshot = picking.snapshot()
    if not picking.finished and not snapshot.turns:
        raise KeyboardInterrupt
    return snapshot
