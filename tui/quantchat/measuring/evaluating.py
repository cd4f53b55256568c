"""Run an evaluation: the models do the same tasks one after the other, each in its own worker."""

from __future__ import annotations

import importlib.resources
import importlib.util
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from quantchat.checkpoints.provider import CheckpointProvider
from quantchat.engines.registry import engine_of
from quantchat.errors import UserError
from quantchat.files import is_file
from quantchat.host.job_runner import JobFailed
from quantchat.host.worker_process import StartWorker, start_worker
from quantchat.measuring.score_plan import Floor, floor_of
from quantchat.paths import temporary_dir
from quantchat.profile.model import AnyVariant, Profile
from quantchat.session.model_jobs import (
    ModelJobs,
    OnModel,
    jobs_snapshot,
    no_result,
    until_stopped,
)
from quantchat.session.requests import threads_for
from quantchat.snapshot.evaluation import (
    EvaluatedRecord,
    EvaluationRecord,
    Role,
    TaskResultRecord,
)
from quantchat.snapshot.schema import Snapshot
from quantchat.system.sampler import DeviceSampler
from quantchat.text import one_line
from quantchat.wire.jobs import EvaluateJob, Workspace
from quantchat.wire.messages import LoadModel
from quantchat.wire.variant import ModelInfo

OWN = "own"
"""Name of the built-in task. Its questions come with quantchat, so it needs no network."""


@dataclass(frozen=True)
class EvaluationPlan:
    """The tasks and settings of an evaluation, and the reference model."""

    tasks: tuple[str, ...]
    """Names of tasks of lm-evaluation-harness, or paths of YAML files that define tasks for it."""
    reference: AnyVariant
    limit: int = 0
    """Maximum questions per task; 0: all."""
    few_shot: int = -1
    """Examples before each question; -1: the task's own number."""
    batch: int = 1
    """Questions per batch."""
    chat_template: bool = False
    """Whether to put each question into the model's chat template."""
    floor: Floor = "none"
    """Which setting is changed when the reference does the tasks a second time ("none": it does
    them once). The answers that differ between the two runs differ by rounding alone: they are the
    noise floor."""


async def evaluate(
    profile: Profile,
    plan: EvaluationPlan,
    *,
    provider: CheckpointProvider,
    start: StartWorker = start_worker,
    on_model: OnModel = lambda label, progress: None,
) -> tuple[Snapshot, EvaluationRecord]:
    """Run the tasks on the reference and each variant; return the snapshot and its evaluation.

    If a model fails, the remaining models are still evaluated; if a task cannot be loaded, the
    evaluation ends. Ctrl+C, SIGTERM and SIGHUP stop the evaluation; the snapshot then has the
    results so far. `provider` builds missing checkpoints, `start` starts a worker, and `on_model`
    receives each model's progress. Raises ModelsFailed if no model gave a result, KeyboardInterrupt
    if a signal stopped the evaluation before the first model was done.
    """
    sampler = DeviceSampler()
    try:
        with tempfile.TemporaryDirectory(prefix="quantchat-", dir=temporary_dir()) as scratch:
            evaluating = Evaluating(profile, plan, scratch, ModelJobs(provider, start, on_model))
            stopped = await until_stopped(evaluating.run())
        if (found := evaluating.record) is not None:
            done = {one.label: one for one in found.models}
            return jobs_snapshot(profile, done, sampler, evaluation=found), found
        raise no_result(evaluating.models, stopped)
    finally:
        sampler.close()


class Evaluating:
    """Runs a plan's tasks on the reference and the variants of a profile, and records the results.

    The models run one after the other.
    """

    def __init__(
        self, profile: Profile, plan: EvaluationPlan, scratch: str, jobs: ModelJobs
    ) -> None:
        """Use `scratch` as the jobs' current folder, because some libraries write files there."""
        self._plan, self._scratch, self._jobs = plan, scratch, jobs
        others = [variant for variant in profile.variants if variant is not plan.reference]
        self._undone = [plan.reference, *others]
        self.harness = ""
        """Version of lm-evaluation-harness; empty before the first result."""
        self._tokenizer = ""
        """Folder or hub id of the reference's tokenizer; empty until the reference is prepared.
        It splits the texts for a server into tokens, because quantchat cannot use the tokenizer of
        the server itself."""
        self.models: list[EvaluatedRecord] = []
        """Records of the models that are done or failed."""

    @property
    def record(self) -> EvaluationRecord | None:
        """The results so far; None if no model has done the tasks."""
        if not self.harness:
            return None
        return EvaluationRecord(
            harness=self.harness,
            chat_template=self._plan.chat_template,
            limit=self._plan.limit,
            batch=self._plan.batch,
            models=list(self.models),
            undone=[spec.label for spec in self._undone],
        )

    async def run(self) -> None:
        """Evaluate all models, even if some fail; end early if a task cannot be loaded."""
        while self._undone:
            spec = self._undone[0]
            role: Role = "reference" if spec is self._plan.reference else "variant"
            done = await self.evaluate(spec, role)
            self.models.append(done)
            self._undone.pop(0)
            self._jobs.on_model(spec.label, None)
            if (
                done.failure and done.failure.kind == "bad_task"
            ):  # every model would fail in the same way
                return
            if role == "reference" and done.model_info is not None:
                await self._ask_again(done.model_info)

    async def _ask_again(self, ran: ModelInfo) -> None:
        """Run the tasks on the reference again for the noise floor, if the plan asks for it.

        `ran` reports how the reference was loaded.
        """
        floor = floor_of(self._plan.reference, ran, self._plan.floor)
        if floor is not None:
            self.models.append(await self.evaluate(floor, "floor"))
            self._jobs.on_model(floor.label, None)

    async def evaluate(self, spec: AnyVariant, role: Role) -> EvaluatedRecord:
        """Return the results of one model, or why it failed."""
        try:
            note, result = await self._jobs.do(spec, lambda load: self._job(spec, load))
        except JobFailed as error:
            return EvaluatedRecord(
                label=spec.label,
                role=role,
                model_info=None,
                note="",
                tasks=[],
                seconds=0.0,
                failure=error.failure,
            )
        self.harness = result.harness
        return EvaluatedRecord(
            label=spec.label,
            role=role,
            model_info=result.model_info,
            note=note,
            tasks=[TaskResultRecord.model_validate(asdict(one)) for one in result.tasks],
            seconds=result.seconds,
        )

    def _job(self, spec: AnyVariant, load: LoadModel) -> EvaluateJob:
        plan = self._plan
        if spec is plan.reference:
            self._tokenizer = load.option("tokenizer", "") or load.model
        return EvaluateJob(
            load=load,
            tasks=list(plan.tasks),
            workspace=Workspace(self._scratch, self._scratch, threads=threads_for(1)),
            limit=plan.limit,
            few_shot=plan.few_shot,
            batch=plan.batch,
            template=plan.chat_template,
            tokenizer=self._tokenizer if engine_of(spec).is_server else "",
        )


def require_harness(variants: Sequence[AnyVariant]) -> None:
    """Raise UserError if lm-evaluation-harness is not installed, before anything is prepared.

    Variants with their own interpreter are not checked: they use the harness of that interpreter.
    """
    ours = [variant for variant in variants if not (variant.python or variant.env)]
    if ours and importlib.util.find_spec("lm_eval") is None:
        raise UserError(
            "lm-evaluation-harness is not installed",
            hint="python -m pip install 'quantchat[eval]'",
        )


def tasks_named(words: str) -> tuple[str, ...]:
    """Return the tasks in the comma-separated list `words`, each once. Raises UserError."""
    return tuple(dict.fromkeys(task_named(word.strip()) for word in words.split(",")))


def task_named(word: str) -> str:
    """Return the name of a task, or the path of its file. Raises UserError."""
    if not word:
        raise UserError(
            "a task name is empty", where="--tasks", hint="give names separated by commas"
        )
    if word == OWN:
        return str(importlib.resources.files("quantchat.corpus") / "tasks" / "own.yaml")
    path = Path(word).expanduser()
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        if not is_file(path):
            raise UserError(
                "no such file", where=one_line(word), hint="give the name of a task or a YAML file"
            )
        return str(path.absolute())
    return word
