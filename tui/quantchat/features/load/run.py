"""Run a load test: the variants one after the other, each level in several rounds."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from quantchat.checkpoints.maker import Maker
from quantchat.engines.registry import engine_of
from quantchat.errors import UserError
from quantchat.host.job_runner import JobFailed
from quantchat.host.worker_process import StartWorker, start_worker
from quantchat.measuring.memory_plan import VariantPlan, plan_variant
from quantchat.paths import temporary_dir
from quantchat.profile.model import AnyVariant, Profile
from quantchat.session.model_jobs import ModelJobs, OnModel, jobs_snapshot, no_result, until_stopped
from quantchat.session.requests import threads_for
from quantchat.snapshot.load_test import LoadedRecord, LoadTestRecord
from quantchat.snapshot.schema import Snapshot
from quantchat.system.sampler import DeviceSampler
from quantchat.wire.codec import ProtocolError, from_json
from quantchat.wire.jobs import (
    ROUNDS,
    BatchJob,
    BatchRound,
    Level,
    LoadRound,
    LoadTestJob,
    Workspace,
)
from quantchat.wire.messages import Failed, Load

_Round = TypeVar("_Round", LoadRound, BatchRound)


@dataclass(frozen=True)
class LoadPlan:
    """The levels of a load test and its settings, named as in `LoadTestRecord`."""

    levels: tuple[Level, ...]
    prompts: tuple[str, ...]
    prompt_tokens: int
    output_tokens: int
    mixed: bool
    requests: int
    rounds: int
    seed: int
    slo: str = ""

    @property
    def batches(self) -> list[int]:
        """The sizes of the batches that a local model decodes, ascending."""
        return sorted({level.concurrency for level in self.levels if level.concurrency})


async def load_test(
    profile: Profile,
    plan: LoadPlan,
    *,
    maker: Maker,
    start: StartWorker = start_worker,
    on_model: OnModel = lambda label, progress: None,
) -> tuple[Snapshot, LoadTestRecord]:
    """Put the plan's load on each variant; return the snapshot and its load test.

    A variant that fails does not stop the others and keeps its finished rounds. Ctrl+C, SIGTERM and
    SIGHUP stop the test in the same way. Raises UserError for a rate and a variant that is no
    server, ModelsFailed if there is no result, KeyboardInterrupt if stopped before the first round.
    """
    for spec in profile.variants:
        if not engine_of(spec).is_server and not plan.batches:
            raise UserError(
                "a local model decodes static batches: requests cannot arrive at a rate",
                where=spec.label,
                hint="give --concurrency, or measure a server",
            )
    sampler = DeviceSampler()
    try:
        with tempfile.TemporaryDirectory(prefix="quantchat-", dir=temporary_dir()) as scratch:
            jobs = ModelJobs(maker, start, on_model, profile.generation)
            testing = _LoadTest(profile, plan, Path(scratch), jobs, sampler)
            stopped = await until_stopped(testing.run())
        found = testing.record
        if any(model.rounds or model.batches for model in found.models):
            done = {model.label: model for model in found.models}
            return jobs_snapshot(profile, done, sampler, load_test=found), found
        raise no_result(found.models, stopped)
    finally:
        sampler.close()


class _LoadTest:
    def __init__(
        self,
        profile: Profile,
        plan: LoadPlan,
        scratch: Path,
        jobs: ModelJobs,
        sampler: DeviceSampler,
    ) -> None:
        self._profile, self._plan, self._scratch = profile, plan, scratch
        self._jobs, self._sampler = jobs, sampler
        self._undone = list(profile.variants)
        self._models: list[LoadedRecord] = []

    @property
    def record(self) -> LoadTestRecord:
        plan = self._plan
        return LoadTestRecord(
            levels=list(plan.levels),
            requests=plan.requests,
            prompt_tokens=plan.prompt_tokens,
            output_tokens=plan.output_tokens,
            mixed=plan.mixed,
            rounds=plan.rounds,
            seed=plan.seed,
            slo=plan.slo,
            models=list(self._models),
            undone=[spec.label for spec in self._undone],
        )

    async def run(self) -> None:
        while self._undone:
            spec = self._undone[0]
            done = self._server if engine_of(spec).is_server else self._local
            self._models.append(await done(spec))
            self._undone.pop(0)
            self._jobs.on_model(spec.label, None)

    async def _server(self, spec: AnyVariant) -> LoadedRecord:
        plan, workspace = self._plan, self._workspace()

        def job(load: Load) -> LoadTestJob:
            return LoadTestJob(
                load=load,
                levels=list(plan.levels),
                prompts=list(plan.prompts),
                requests=plan.requests,
                output_tokens=plan.output_tokens,
                rounds=plan.rounds,
                seed=plan.seed,
                workspace=workspace,
            )

        record = LoadedRecord(label=spec.label, resolved=None, note="", counted=False)
        known: dict[str, object] = {}
        try:
            _, about = await self._jobs.do(spec, job)
            known = {"resolved": about.resolved, "note": about.note, "counted": about.counted}
        except JobFailed as error:
            known["failure"] = error.failure
        return record.model_copy(update={**known, "rounds": _read(workspace, LoadRound)})

    async def _local(self, spec: AnyVariant) -> LoadedRecord:
        plan, workspace = self._plan, self._workspace()
        planned = self._planned(spec)
        most = planned.largest_batch
        fitting = [size for size in plan.batches if most is None or size <= most]
        beyond = [size for size in plan.batches if size not in fitting]
        record = LoadedRecord(label=spec.label, resolved=None, note="", counted=True)
        left_out = ""
        if beyond:
            left_out = (
                f"batches of {', '.join(map(str, beyond))} were not tried: by the plan at most"
                f" {most} fit in the free memory of {planned.room.name}"
            )
        if not fitting:
            hint = "free some memory, or ask for a smaller batch or fewer tokens"
            failure = Failed("out_of_memory", left_out, hint)
            return record.model_copy(update={"failure": failure})

        def job(load: Load) -> BatchJob:
            return BatchJob(
                load=load,
                batches=fitting,
                prompt_tokens=plan.prompt_tokens,
                output_tokens=plan.output_tokens,
                mixed=plan.mixed,
                rounds=plan.rounds,
                workspace=workspace,
            )

        known: dict[str, object] = {"left_out": left_out}
        try:
            note, about = await self._jobs.do(spec, job)
            known |= {"note": note, "resolved": about.resolved}
        except JobFailed as error:
            known["failure"] = error.failure
        return record.model_copy(update={**known, "batches": _read(workspace, BatchRound)})

    def _planned(self, spec: AnyVariant) -> VariantPlan:
        """Return the memory plan of `spec` as the machine is now."""
        tokens = self._plan.prompt_tokens + self._plan.output_tokens
        return plan_variant(spec, self._sampler.sample(), tokens=tokens, limits=True)

    def _workspace(self) -> Workspace:
        folder = self._scratch / str(len(self._models))
        folder.mkdir()
        return Workspace(str(folder), str(folder), threads=threads_for(1))


def _read(workspace: Workspace, kind: type[_Round]) -> list[_Round]:
    """Return the finished rounds; a job that was stopped may have left half a line."""
    path, found = Path(workspace.output, ROUNDS), []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                found.append(from_json(kind, json.loads(line)))
            except (ValueError, ProtocolError):
                break
    return found
