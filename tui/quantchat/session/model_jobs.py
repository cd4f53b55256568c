"""Run jobs on models one after the other, each in its own worker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

import quantchat
from quantchat.checkpoints.provider import CheckpointProvider
from quantchat.errors import ModelsFailed, UserError
from quantchat.host.environments import interpreter
from quantchat.host.job_runner import JobFailed, run_job
from quantchat.host.signals import on_signals
from quantchat.host.worker_process import Place, StartWorker, Worker
from quantchat.profile.model import AnyVariant, Generation, Profile
from quantchat.session.failures import failure_before_start
from quantchat.session.live_variant import State
from quantchat.session.recorder import environment
from quantchat.session.requests import load_request
from quantchat.snapshot.evaluation import EvaluationRecord
from quantchat.snapshot.load_test import LoadTestRecord
from quantchat.snapshot.schema import Snapshot, VariantRecord
from quantchat.snapshot.score import ScoreRecord
from quantchat.system.sampler import DeviceSampler
from quantchat.wire.messages import Failed, LoadModel, Progress
from quantchat.wire.variant import ModelInfo

if TYPE_CHECKING:
    from quantchat.wire.jobs import Job, Result

OnModel = Callable[[str, Progress | None], None]
"""Called with a model's label and its progress; None means that the model is done."""


@dataclass(frozen=True)
class ModelJobs:
    """Runs jobs on models: builds missing checkpoints and starts a worker for each job."""

    provider: CheckpointProvider
    start: StartWorker
    on_model: OnModel
    settings: Generation | None = None
    """Generation settings for a server's requests; None if the job sends none."""

    async def do(
        self, spec: AnyVariant, job_for: Callable[[LoadModel], Job[Result]]
    ) -> tuple[str, Result]:
        """Run a job on the model `spec`; return a note on its checkpoint and the job's result.

        `job_for` gets the request that loads the model, and returns the job. Cancelling ends the
        worker.

        Raises JobFailed if the job fails, the checkpoint cannot be built or the worker cannot
        start.
        """

        def report_step(done: int, total: int, detail: str) -> None:
            self.on_model(spec.label, Progress(detail, done, total))

        async def start_there(_: Place) -> Worker:
            return await self.start(Place(spec.label, interpreter(spec.python, spec.env)))

        try:
            prepared = await self.provider.prepare(spec, lambda one: self.on_model(spec.label, one))
            request = load_request(spec, prepared, self.settings)
            result = await run_job(start_there, job_for(request), report_step)
        except (UserError, OSError) as error:
            raise JobFailed(failure_before_start(error)) from error
        return prepared.note, result


async def until_stopped(work: Coroutine[Any, Any, None]) -> bool:
    """Run `work` until it ends or Ctrl+C, SIGTERM or SIGHUP cancels it.

    Return whether a signal cancelled it.
    """
    task = asyncio.ensure_future(work)
    stopped = False

    def stop() -> None:
        nonlocal stopped
        stopped = True
        task.cancel()

    with on_signals(stop):
        try:
            await task
        except asyncio.CancelledError:
            if not stopped:  # the caller was cancelled
                raise
    return stopped


class JobRecord(Protocol):
    """The record of a model's job that is done or has failed."""

    @property
    def label(self) -> str:
        """Name of the variant in the profile."""

    @property
    def model_info(self) -> ModelInfo | None:
        """The model, libraries and settings that actually ran; None after a failure."""

    @property
    def note(self) -> str:
        """A note for the user on the checkpoint, e.g. that its base had been quantized before."""

    @property
    def failure(self) -> Failed | None:
        """Why the job failed; None if it did not."""


def no_result(models: Sequence[JobRecord], stopped: bool) -> BaseException:
    """Return the exception to raise if no job gave a result.

    It is KeyboardInterrupt if a signal stopped the jobs, else ModelsFailed with the failure of the
    first of `models`.
    """
    if stopped:
        return KeyboardInterrupt()
    first = models[0]
    failure = first.failure or Failed("internal", "its job gave no result")
    # If a task of lm-evaluation-harness cannot be loaded, no model is the cause, so name none.
    where = "" if failure.kind == "bad_task" else first.label
    return ModelsFailed(failure.reason, where=where, hint=failure.hint)


def jobs_snapshot(
    profile: Profile,
    done: Mapping[str, JobRecord],
    sampler: DeviceSampler,
    *,
    score: ScoreRecord | None = None,
    evaluation: EvaluationRecord | None = None,
    load_test: LoadTestRecord | None = None,
) -> Snapshot:
    """Return a snapshot of jobs on the models of `profile`, which has no turns.

    `done` has the record of each finished job by the model's label. `score`, `evaluation` or
    `load_test` has the results.
    """
    return Snapshot(
        created=datetime.now().astimezone().isoformat(timespec="seconds"),
        quantchat=quantchat.__version__,
        name=profile.name,
        profile=profile.model_dump(mode="json"),
        shown=[variant.label for variant in profile.variants[:2]],
        variants=[_variant(v.label, done.get(v.label)) for v in profile.variants],
        turns=[],
        score=score,
        evaluation=evaluation,
        load_test=load_test,
        environment=environment(sampler),
    )


def _variant(label: str, done: JobRecord | None) -> VariantRecord:
    failure = done.failure if done else None
    return VariantRecord(
        label=label,
        state=(State.FAILED if failure else State.IDLE).value,
        model_info=done.model_info if done else None,
        load=None,
        note=done.note if done else "",
        ledger=None,
        memory=None,
        failure=failure,
    )
