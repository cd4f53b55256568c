"""Score a text with several models one after the other, each in its own worker."""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from quantchat import paths
from quantchat.checkpoints.provider import CheckpointProvider
from quantchat.features.score.where import locate_errors
from quantchat.host.worker_process import StartWorker, start_worker
from quantchat.measuring.score_plan import ScorePlan
from quantchat.measuring.scoring import Scoring
from quantchat.profile.model import Profile
from quantchat.session.model_jobs import ModelJobs, OnModel, jobs_snapshot, no_result, until_stopped
from quantchat.snapshot.schema import Snapshot
from quantchat.snapshot.score import ScoreRecord
from quantchat.system.sampler import DeviceSampler


async def score(
    profile: Profile,
    plan: ScorePlan,
    *,
    provider: CheckpointProvider,
    start: StartWorker = start_worker,
    on_model: OnModel = lambda label, progress: None,
    where: bool = False,
) -> tuple[Snapshot, ScoreRecord]:
    """Score the text with the reference and each variant; return the snapshot and its score.

    For the noise floor, the reference scores the text a second time, with another attention
    implementation or dtype. With `where`, also find which layers cause each variant's error. A
    model that fails does not stop the others. Ctrl+C, SIGTERM and SIGHUP stop the score; the
    snapshot has the results so far. Raises ModelsFailed if all models fail, KeyboardInterrupt if
    stopped before the first model is done.
    """
    sampler = DeviceSampler()
    try:
        with _scratch_folder() as folder:
            jobs = ModelJobs(provider, start, on_model)
            scoring = Scoring(profile, plan, folder, jobs)

            async def work() -> None:
                await scoring.run()
                if where:
                    await locate_errors(scoring, profile, plan, folder, jobs)

            stopped = await until_stopped(work())
        if (found := scoring.record) is not None:
            read = {one.label: one for one in found.models if one.role != "floor"}
            return jobs_snapshot(profile, read, sampler, score=found), found
        raise no_result(scoring.models, stopped)
    finally:
        sampler.close()


@contextlib.contextmanager
def _scratch_folder() -> Iterator[Path]:
    """Yield a private folder for logits and remove it at the end.

    Also remove the folders of killed runs, which no process has locked.
    """
    home = paths.private(paths.cache_dir() / "scoring")
    for lock in home.glob("*.lock"):
        with (
            contextlib.suppress(Timeout, OSError),
            FileLock(lock, mode=0o600).acquire(blocking=False),
        ):
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.unlink(missing_ok=True)
    lock = home / f"{uuid.uuid4().hex[:12]}.lock"
    with FileLock(lock, mode=0o600):
        folder = paths.private(lock.with_suffix(""))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            lock.unlink(missing_ok=True)
