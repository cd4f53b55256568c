"""A score: one model after the other reads a text, each in a worker of its own."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import uuid
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

import quantchat
from quantchat import paths
from quantchat.bench.headless import on_signals
from quantchat.bench.live_variant import State
from quantchat.bench.record import environment
from quantchat.bench.score_models import OnModel, Scoring
from quantchat.bench.score_plan import ScorePlan
from quantchat.errors import UserError
from quantchat.host.worker_process import StartWorker, start_worker
from quantchat.metrics.sampler import DeviceSampler
from quantchat.profile.model import Profile
from quantchat.quantize.maker import Maker
from quantchat.snapshot.schema import Snapshot, VariantRecord
from quantchat.snapshot.score import ScoredRecord, ScoreRecord
from quantchat.worker.protocol import Failed


class NothingScored(UserError):
    """No model could read the text."""


async def score(
    profile: Profile,
    plan: ScorePlan,
    *,
    maker: Maker,
    start: StartWorker = start_worker,
    on_model: OnModel = lambda label, progress: None,
) -> tuple[Snapshot, ScoreRecord]:
    """Let the reference, its floor and each variant read the text; the snapshot, and its score.

    A model that fails does not stop the others. Ctrl+C, SIGTERM and SIGHUP end it; what was read
    until then is in the snapshot. Raises NothingScored where no model could, KeyboardInterrupt
    where it is stopped before the first one was done.
    """
    sampler = DeviceSampler()
    try:
        with _workplace() as folder:
            scoring = Scoring(profile, plan, folder, maker, start, on_model)
            stopped = await _until_stopped(scoring)
        if (found := scoring.record) is not None:
            return _snapshot(profile, found, sampler), found
        if stopped:
            raise KeyboardInterrupt
        first = scoring.models[0]
        failure = first.failure or Failed("internal", "it was not read")
        raise NothingScored(failure.reason, where=first.label, mend=failure.mend)
    finally:
        sampler.close()


async def _until_stopped(scoring: Scoring) -> bool:
    """Run it; whether a signal ended it."""
    task = asyncio.ensure_future(scoring.run())
    stopped = False

    def stop() -> None:
        nonlocal stopped
        stopped = True
        task.cancel()

    with on_signals(stop):
        try:
            await task
        except asyncio.CancelledError:
            if not stopped:  # whoever waits for us was cancelled
                raise
    return stopped


@contextlib.contextmanager
def _workplace() -> Iterator[Path]:
    """A private folder for the forecasts, gone at the end, as is what a killed run has left."""
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


def _snapshot(profile: Profile, score: ScoreRecord, sampler: DeviceSampler) -> Snapshot:
    read = {model.label: model for model in score.models if model.role != "floor"}
    return Snapshot(
        created=datetime.now().astimezone().isoformat(timespec="seconds"),
        quantchat=quantchat.__version__,
        name=profile.name,
        profile=profile.model_dump(mode="json"),
        shown=[variant.label for variant in profile.variants[:2]],
        variants=[_variant(v.label, read.get(v.label)) for v in profile.variants],
        turns=[],
        score=score,
        environment=environment(sampler),
    )


def _variant(label: str, read: ScoredRecord | None) -> VariantRecord:
    failure = read.failure if read else None
    return VariantRecord(
        label=label,
        state=(State.FAILED if failure else State.IDLE).value,
        resolved=read.resolved if read else None,
        load=None,
        note=read.note if read else "",
        ledger=None,
        memory=None,
        failure=failure,
    )
