"""Find which layers of each variant cause its error, after the variants are scored."""

from __future__ import annotations

from pathlib import Path

from quantchat import paths
from quantchat.engines.registry import engine_of
from quantchat.host.job_runner import JobFailed
from quantchat.measuring.score_plan import WINDOW, ScorePlan
from quantchat.measuring.scoring import Scoring
from quantchat.profile.model import AnyVariant, Profile
from quantchat.session.model_jobs import ModelJobs
from quantchat.session.requests import load_request, threads_for
from quantchat.snapshot.score import LocatedRecord
from quantchat.wire.jobs import LocateLossJob, Workspace
from quantchat.wire.messages import LoadModel

MOST_TOKENS = 1024
"""Most tokens of the text that are read for each layer or module, to limit the total time."""

WORST = 3
"""Number of the worst layers whose modules are examined one by one."""


async def locate_errors(
    scoring: Scoring, profile: Profile, plan: ScorePlan, folder: Path, jobs: ModelJobs
) -> None:
    """Add to the records of `scoring` where the error of each variant comes from.

    To find it, one layer of the reference at a time is replaced by the variant's layer. If that is
    not possible, the note of the variant's record has the reason.
    """
    specs = {spec.label: spec for spec in profile.variants}
    for place, model in enumerate(scoring.models):
        spec = specs.get(model.label)
        compared = model.role == "variant" and model.divergence is not None
        if spec is None or not compared or engine_of(spec).is_server:
            continue
        try:
            window = min(WINDOW, scoring.window)
            found = await _located(spec, plan, window, folder / f"where-{place}", jobs)
        except JobFailed as error:
            note = f"its error was not located: {error.failure.reason}"
            changes: dict[str, object] = {"note": "; ".join(filter(None, (model.note, note)))}
        else:
            changes = {"located": found}
        scoring.models[place] = model.model_copy(update=changes)
        jobs.on_model(spec.label, None)


async def _located(
    spec: AnyVariant, plan: ScorePlan, window: int, folder: Path, jobs: ModelJobs
) -> LocatedRecord:
    """Return where the error of `spec` comes from. Raises JobFailed."""
    prepared = await jobs.provider.prepare(
        plan.reference, lambda progress: jobs.on_model(spec.label, progress)
    )
    reference = load_request(plan.reference, prepared)
    workspace = Workspace(str(paths.private(folder)), str(folder), threads=threads_for(1))

    def job(load: LoadModel) -> LocateLossJob:
        return LocateLossJob(
            load=load,
            reference=reference,
            text=str(plan.corpus.path),
            window=window,
            tokens=max(window, min(plan.tokens or MOST_TOKENS, MOST_TOKENS)),
            workspace=workspace,
            worst=WORST,
        )

    _, found = await jobs.do(spec, job)
    return LocatedRecord(positions=found.positions, whole=found.whole, parts=found.parts)
