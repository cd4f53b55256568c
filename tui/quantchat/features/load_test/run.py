"""Run a load test: the variants one after the other, each level in several rounds."""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from typing import TypeVar

from quantchat.checkpoints.provider import CheckpointProvider
from quantchat.engines.registry import engine_of
from quantchat.features.load_test.plan import LoadTestPlan
from quantchat.host.job_runner import JobFailed
from quantchat.host.worker_process import StartWorker, start_worker
from quantchat.measuring.memory_plan import VariantPlan, plan_variant
from quantchat.paths import temporary_dir
from quantchat.profile.model import AnyVariant, Profile
from quantchat.session.model_jobs import ModelJobs, OnModel, jobs_snapshot, no_result, until_stopped
from quantchat.session.requests import threads_for
from quantchat.snapshot.load_test import LoadTestedRecord, LoadTestRecord
from quantchat.snapshot.schema import Snapshot
from quantchat.system.sampler import DeviceSampler
from quantchat.wire.codec import ProtocolError, from_json
from quantchat.wire.jobs import (
    PROGRESS_FILE,
    ROUNDS_FILE,
    BatchJob,
    BatchRound,
    LoadTestJob,
    LoadTestProgress,
    LoadTestRound,
    Workspace,
)
from quantchat.wire.messages import Failed, LoadModel

_Line = TypeVar("_Line", LoadTestRound, BatchRound, LoadTestProgress)


async def load_test(
    profile: Profile,
    plan: LoadTestPlan,
    *,
    provider: CheckpointProvider,
    start: StartWorker = start_worker,
    on_model: OnModel = lambda label, progress: None,
) -> tuple[Snapshot, LoadTestRecord]:
    """Run the load test of `plan` on each variant; return the snapshot and its load test.

    If a variant fails, its finished rounds are kept and the other variants are still tested.
    Ctrl+C, SIGTERM and SIGHUP end the whole test, and finished rounds are kept. Raises UserError as
    `LoadTestPlan.check` does, ModelsFailed if there is no result, and KeyboardInterrupt if the test
    is stopped before its first round is finished.
    """
    plan.check(profile)
    sampler = DeviceSampler()
    try:
        with tempfile.TemporaryDirectory(prefix="quantchat-", dir=temporary_dir()) as scratch:
            jobs = ModelJobs(provider, start, on_model, profile.generation)
            testing = LoadTest(profile, plan, Path(scratch), jobs, sampler)
            stopped = await until_stopped(testing.run())
        if (snapshot := testing.snapshot()) is not None:
            return snapshot, testing.record
        raise no_result(testing.record.models, stopped)
    finally:
        sampler.close()


class LoadTest:
    """Runs the load test of a plan on the variants of a profile, one after the other."""

    def __init__(
        self,
        profile: Profile,
        plan: LoadTestPlan,
        scratch: Path,
        jobs: ModelJobs,
        sampler: DeviceSampler,
    ) -> None:
        """Use the folder `scratch` for the workers' files."""
        self._profile, self._plan, self._scratch = profile, plan, scratch
        self._jobs, self._sampler = jobs, sampler
        self._undone = list(profile.variants)
        self._models: list[LoadTestedRecord] = []
        self._running: tuple[str, Workspace] | None = None
        """Label and folder of the variant that is being measured."""

    @property
    def record(self) -> LoadTestRecord:
        """The load test so far, including finished rounds of the variant that is being measured.

        May be read from any thread, while `run` goes on.
        """
        running, plan = self._running, self._plan
        models, undone = list(self._models), [spec.label for spec in self._undone]
        if running is not None and running[0] not in {one.label for one in models}:
            models += _partial(*running)
        return LoadTestRecord(
            levels=list(plan.levels),
            requests=plan.requests,
            prompt_tokens=plan.prompt_tokens,
            output_tokens=plan.output_tokens,
            mixed=plan.mixed,
            rounds=plan.rounds,
            seed=plan.seed,
            slo=plan.slo,
            models=models,
            undone=undone,
        )

    @property
    def now(self) -> LoadTestProgress | None:
        """Progress of the running round of a server; None if no such round is running."""
        running = self._running
        lines = _read(running[1], LoadTestProgress, PROGRESS_FILE) if running else []
        return lines[-1] if lines else None

    def snapshot(self) -> Snapshot | None:
        """Return what was measured; None if no round was finished."""
        found = self.record
        if not any(model.rounds or model.batches for model in found.models):
            return None
        done = {model.label: model for model in found.models}
        return jobs_snapshot(self._profile, done, self._sampler, load_test=found)

    async def run(self) -> None:
        """Measure all variants. If this call is cancelled, finished rounds are kept."""
        while self._undone:
            spec = self._undone[0]
            measure = self._measure_server if engine_of(spec).is_server else self._measure_local
            try:
                found = await measure(spec)
            except asyncio.CancelledError:
                if self._running is not None and (partial := _partial(*self._running)):
                    self._models += partial
                    self._undone.pop(0)
                raise
            finally:
                self._running = None
            self._models.append(found)
            self._undone.pop(0)
            self._jobs.on_model(spec.label, None)

    async def _measure_server(self, spec: AnyVariant) -> LoadTestedRecord:
        plan, workspace = self._plan, self._workspace()

        def job(load: LoadModel) -> LoadTestJob:
            return LoadTestJob(
                server=load,
                levels=list(plan.levels),
                prompts=list(plan.prompts),
                requests=plan.requests,
                output_tokens=plan.output_tokens,
                rounds=plan.rounds,
                seed=plan.seed,
                workspace=workspace,
            )

        record = LoadTestedRecord(label=spec.label, model_info=None, note="", tokens_counted=None)
        known: dict[str, object] = {}
        try:
            _, result = await self._jobs.do(spec, job)
            known = {
                "model_info": result.model_info,
                "note": result.note,
                "tokens_counted": result.tokens_counted,
            }
        except JobFailed as error:
            known["failure"] = error.failure
        return record.model_copy(update={**known, "rounds": _read(workspace, LoadTestRound)})

    async def _measure_local(self, spec: AnyVariant) -> LoadTestedRecord:
        plan, workspace = self._plan, self._workspace()
        planned = self._planned(spec)
        most = planned.largest_batch
        fitting = [size for size in plan.batches if most is None or size <= most]
        beyond = [size for size in plan.batches if size not in fitting]
        record = LoadTestedRecord(label=spec.label, model_info=None, note="", tokens_counted=True)
        left_out = ""
        if beyond:
            left_out = (
                f"batches of {', '.join(map(str, beyond))} were not tried: by the estimate at most"
                f" {most} fit in the free memory of {planned.device.name}"
            )
        if not fitting:
            hint = "free some memory, or ask for a smaller batch or fewer tokens"
            failure = Failed("out_of_memory", left_out, hint)
            return record.model_copy(update={"failure": failure})

        def job(load: LoadModel) -> BatchJob:
            return BatchJob(
                model=load,
                batches=fitting,
                prompt_tokens=plan.prompt_tokens,
                output_tokens=plan.output_tokens,
                mixed=plan.mixed,
                rounds=plan.rounds,
                workspace=workspace,
            )

        known: dict[str, object] = {"left_out": left_out}
        try:
            note, result = await self._jobs.do(spec, job)
            known |= {"note": note, "model_info": result.model_info}
        except JobFailed as error:
            known["failure"] = error.failure
        return record.model_copy(update={**known, "batches": _read(workspace, BatchRound)})

    def _planned(self, spec: AnyVariant) -> VariantPlan:
        """Return the memory plan of `spec` for the memory that is free now."""
        tokens = self._plan.prompt_tokens + self._plan.output_tokens
        return plan_variant(spec, self._sampler.sample(), tokens=tokens, search_limits=True)

    def _workspace(self) -> Workspace:
        folder = self._scratch / str(len(self._models))
        folder.mkdir()
        workspace = Workspace(str(folder), str(folder), threads=threads_for(1))
        self._running = (self._undone[0].label, workspace)
        return workspace


def _partial(label: str, workspace: Workspace) -> list[LoadTestedRecord]:
    """Return the finished rounds of the running variant as a record; empty if there are none."""
    rounds, batches = _read(workspace, LoadTestRound), _read(workspace, BatchRound)
    if not rounds and not batches:
        return []
    return [
        LoadTestedRecord(
            label=label,
            model_info=None,
            note="",
            tokens_counted=True if batches else None,
            rounds=rounds,
            batches=batches,
            left_out="stopped before its last round",
        )
    ]


def _read(workspace: Workspace, kind: type[_Line], name: str = ROUNDS_FILE) -> list[_Line]:
    """Return the complete lines of the file `name`, each converted to `kind`.

    The last line may be incomplete: the worker is still writing it, or was stopped while writing.
    """
    path, found = Path(workspace.output, name), []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                found.append(from_json(kind, json.loads(line)))
            except (ValueError, ProtocolError):
                break
    return found
