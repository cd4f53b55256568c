"""Build a checkpoint, and compare its size and perplexity with those of the original model."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quantchat import paths
from quantchat.checkpoints import headers
from quantchat.checkpoints.builder import CheckpointBuilder
from quantchat.checkpoints.built_results import (
    as_recorded,
    calibration_used,
    layers_resumed,
    module_losses,
    tokens_written,
)
from quantchat.checkpoints.cache import read_built
from quantchat.checkpoints.provider import PreparedModel
from quantchat.checkpoints.sources import ModelName
from quantchat.engines.quantize import Calibration
from quantchat.engines.registry import engine_of
from quantchat.errors import UserError
from quantchat.host.job_runner import JobFailed, run_job
from quantchat.host.worker_process import StartWorker, start_worker
from quantchat.profile.model import AnyVariant
from quantchat.session.requests import load_request
from quantchat.statistics import quality
from quantchat.statistics.quality import Quantity
from quantchat.wire.jobs import CalibrationUsed, ModuleLoss, ScoreJob, Workspace
from quantchat.wire.messages import Progress

if TYPE_CHECKING:
    from quantchat.statistics.quality import Values

WINDOW = 512
"""Window of the perplexity in tokens; the second half of each window is scored."""

FEWEST = 64
"""Minimum length of the held-out text in tokens; a shorter text gives no perplexity."""


@dataclass(frozen=True)
class Perplexity(Quantity):
    """Perplexity over the held-out text: text that was not used for calibration."""

    positions: int
    """Number of scored tokens."""


@dataclass(frozen=True)
class ModelFigures:
    """Size and perplexity of the model before or after quantization."""

    bytes: int | None
    """Bytes of the tensors in the files; None if the headers cannot be read."""
    perplexity: Perplexity | None
    """None if the perplexity was not requested or is not available."""
    why: str = ""
    """Why a requested perplexity is not available."""


@dataclass(frozen=True)
class Outcome:
    """A built checkpoint's size, perplexity, losses and calibration, and the original's figures."""

    folder: Path
    before: ModelFigures
    after: ModelFigures
    parameters: int | None
    """Parameters of the original model; None if its headers cannot be read."""
    perplexity_more: Quantity | None
    """ΔPPL, after minus before, paired by token; None if the two scored different tokens."""
    seconds: float
    """Seconds to quantize, including loading and saving."""
    losses: list[ModuleLoss]
    """The error of each module; empty for a method without calibration."""
    calibration: CalibrationUsed | None
    """The calibration; None for a method without calibration."""
    note: str = ""
    resumed: int = 0
    """Layers that an earlier, interrupted build quantized; `seconds` does not include them."""

    def as_json(self) -> dict[str, object]:
        """Return the outcome as JSON values, with the keys that `quantize --json` prints."""
        calibration = as_recorded(self.calibration) if self.calibration else {}
        return {**asdict(self), "folder": str(self.folder), "calibration": calibration}

    def bits_per_weight(self, side: ModelFigures) -> float | None:
        """Return the bits in the files ÷ all parameters, quantized or not; None if unknown."""
        if side.bytes is None or not self.parameters:
            return None
        return 8 * side.bytes / self.parameters


@dataclass(frozen=True)
class BuiltPair:
    """A built checkpoint and its base model, each as a variant and as its `PreparedModel`.

    `base` and `before` are the base model, `spec` and `after` the checkpoint.
    """

    base: AnyVariant
    spec: AnyVariant
    before: PreparedModel
    after: PreparedModel

    @property
    def folder(self) -> Path:
        """The checkpoint's folder."""
        return Path(self.after.model)


async def make(
    base: AnyVariant,
    spec: AnyVariant,
    on_progress: Callable[[Progress], None],
    *,
    builder: CheckpointBuilder | None = None,
) -> BuiltPair:
    """Build the checkpoint of `spec` from `base`.

    After a cancellation, finished stages stay in the cache. Raises JobFailed or UserError.
    """
    builder = builder or CheckpointBuilder()
    before = await builder.prepare(base, on_progress)
    return BuiltPair(base, spec, before, await builder.prepare(spec, on_progress))


async def judge(
    pair: BuiltPair,
    held_out: Calibration | None,
    on_progress: Callable[[Progress], None],
    *,
    builder: CheckpointBuilder | None = None,
    start: StartWorker = start_worker,
) -> Outcome:
    """Return the outcome of `pair`, with the perplexity of the model before and after.

    The perplexity is over the held-out part of the calibration set that `held_out` names; with
    None, there is no perplexity. If a perplexity cannot be measured, the `ModelFigures` of its
    model has the reason.
    """
    text, why = None, ""
    if held_out is not None:
        try:
            text = await (builder or CheckpointBuilder()).held_out(pair.spec, held_out, on_progress)
        except (JobFailed, UserError) as error:
            why = str(error)

    async def figures(
        name: str, variant: AnyVariant, place: PreparedModel
    ) -> tuple[ModelFigures, _TokenScores | None]:
        size = _size(variant, place)[0]
        if text is None:
            return ModelFigures(size, None, why), None
        if (tokens := _tokens(text)) < FEWEST:
            short = f"the held-out text has {tokens} tokens, and at least {FEWEST} are needed"
            return ModelFigures(size, None, short), None
        window, title = min(WINDOW, tokens), f"perplexity {name}"
        try:
            read = await _read(variant, place, text, window, title, on_progress, start)
        except JobFailed as error:
            return ModelFigures(size, None, str(error)), None
        return ModelFigures(size, read.perplexity), read

    built = read_built(pair.folder)
    before, base = await figures("before", pair.base, pair.before)
    after, quantized = await figures("after", pair.spec, pair.after)
    return Outcome(
        folder=pair.folder,
        before=before,
        after=after,
        perplexity_more=quantized.difference_from(base) if base and quantized else None,
        parameters=_size(pair.base, pair.before)[1],
        seconds=built.seconds if built else 0.0,
        losses=module_losses(built),
        calibration=calibration_used(built),
        note=pair.after.note,
        resumed=layers_resumed(built),
    )


def _tokens(text: Path) -> int:
    return tokens_written(read_built(text.parent))


def _size(spec: AnyVariant, prepared: PreparedModel) -> tuple[int | None, int | None]:
    """Return the bytes and elements of the tensors; None if the headers cannot be read."""
    named, gguf = ModelName(prepared.model, prepared.revision), engine_of(spec).gguf_file(spec)
    try:
        files = headers.read_gguf_of(named, gguf) if gguf else headers.read(named, fetch=False)
    except UserError:
        return None, None
    return files.bytes, sum(tensor.elements for tensor in files.tensors.values())


@dataclass(frozen=True)
class _TokenScores:
    """The scores of the tokens of the held-out text by one model."""

    nll: Values
    """Negative log-likelihood of each scored token in nats."""
    windows: int
    ids_sha256: str
    """SHA-256 of the ids of the text's tokens."""

    @property
    def perplexity(self) -> Perplexity:
        found = quality.perplexity(self.nll, self.windows)
        return Perplexity(found.value, found.error, found.clustered, len(self.nll))

    def difference_from(self, other: _TokenScores) -> Quantity | None:
        """Return this model's perplexity minus that of `other`; None if their tokens differ."""
        if self.ids_sha256 != other.ids_sha256:
            return None
        return quality.perplexity_difference(self.nll, other.nll, self.windows)


async def _read(
    spec: AnyVariant,
    place: PreparedModel,
    text: Path,
    window: int,
    title: str,
    on_progress: Callable[[Progress], None],
    start: StartWorker,
) -> _TokenScores:
    import numpy

    with tempfile.TemporaryDirectory(dir=paths.private(paths.cache_dir())) as scratch:
        load = load_request(spec, place)
        job = ScoreJob(load, str(text), window, window, Workspace(scratch, scratch))
        on_progress(Progress(title))
        result = await run_job(
            start,
            job,
            lambda done, total, detail: on_progress(Progress(title, done, total, detail)),
        )
        nll = numpy.fromfile(Path(scratch) / "nll")
    return _TokenScores(nll, len(nll) // (window - result.context), result.ids_sha256)
