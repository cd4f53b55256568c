"""A checkpoint made on command: what it came to, against the model it was made from."""

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
from quantchat.checkpoints.maker import Prepared
from quantchat.checkpoints.sources import Named
from quantchat.engines.quantize import Quantize
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
"""Tokens of a window that perplexity is taken in; the second half of each is scored."""

FEWEST = 64
"""Tokens that are too few for a perplexity."""


@dataclass(frozen=True)
class Perplexity(Quantity):
    """Over the text that was held out."""

    positions: int
    """Tokens that were scored."""


@dataclass(frozen=True)
class Side:
    """The model before or after."""

    bytes: int | None
    """Of its tensors, as they lie in the files; None where the files do not tell."""
    perplexity: Perplexity | None
    """None where it was not taken."""
    why: str = ""
    """Why it was not, where it was asked for and could not be had."""


@dataclass(frozen=True)
class Outcome:
    """What a checkpoint came to."""

    folder: Path
    before: Side
    after: Side
    parameters: int | None
    """As trained; None where the files of the model do not tell."""
    perplexity_more: Quantity | None
    """After less before, paired, since both read the same tokens; None where they did not."""
    seconds: float
    """What quantizing took, with loading and saving."""
    losses: list[ModuleLoss]
    """The error of each module, of a method that is calibrated."""
    calibration: CalibrationUsed | None
    """What it was calibrated on; None for a method that is not."""
    note: str = ""
    resumed: int = 0
    """Layers that were quantized by an earlier try, and are not in `seconds`."""

    def as_json(self) -> dict[str, object]:
        """Return it as JSON values, with the keys that `quantize --json` prints."""
        calibration = as_recorded(self.calibration) if self.calibration else {}
        return {**asdict(self), "folder": str(self.folder), "calibration": calibration}

    def bits_per_weight(self, side: Side) -> float | None:
        """Bits in the files for each parameter of the model, whatever is quantized of it."""
        if side.bytes is None or not self.parameters:
            return None
        return 8 * side.bytes / self.parameters


@dataclass(frozen=True)
class BuiltHere:
    """A checkpoint, and the model it was made from, by what loads them."""

    base: AnyVariant
    spec: AnyVariant
    before: Prepared
    after: Prepared

    @property
    def folder(self) -> Path:
        """Where the checkpoint lies."""
        return Path(self.after.model)


async def make(
    base: AnyVariant,
    spec: AnyVariant,
    on_progress: Callable[[Progress], None],
    *,
    workshop: CheckpointBuilder | None = None,
) -> BuiltHere:
    """Make the checkpoint of `spec` out of `base`.

    Raises JobFailed or UserError. Cancelling keeps what is finished.
    """
    workshop = workshop or CheckpointBuilder()
    before = await workshop.prepare(base, on_progress)
    return BuiltHere(base, spec, before, await workshop.prepare(spec, on_progress))


async def judge(
    made: BuiltHere,
    held_out: Quantize | None,
    on_progress: Callable[[Progress], None],
    *,
    workshop: CheckpointBuilder | None = None,
    start: StartWorker = start_worker,
) -> Outcome:
    """Say what `made` came to, with the perplexity of the model before and after.

    `held_out` says of which calibration the held-out part is read; None reads nothing. A perplexity
    that cannot be had costs nothing else: its side says why.
    """
    text, why = None, ""
    if held_out is not None:
        try:
            text = await (workshop or CheckpointBuilder()).held_out(
                made.spec, held_out, on_progress
            )
        except (JobFailed, UserError) as error:
            why = str(error)

    async def side(name: str, variant: AnyVariant, place: Prepared) -> tuple[Side, _Read | None]:
        size = _size(place)[0]
        tokens = _tokens(text) if text else 0
        if text is None or tokens < FEWEST:
            return Side(size, None, why), None
        window, title = min(WINDOW, tokens), f"perplexity {name}"
        try:
            read = await _read(variant, place, text, window, title, on_progress, start)
        except JobFailed as error:
            return Side(size, None, str(error)), None
        return Side(size, read.perplexity), read

    told = read_built(made.folder)
    before, base = await side("before", made.base, made.before)
    after, quantized = await side("after", made.spec, made.after)
    return Outcome(
        folder=made.folder,
        before=before,
        after=after,
        perplexity_more=quantized.more_than(base) if base and quantized else None,
        parameters=_size(made.before)[1],
        seconds=told.seconds if told else 0.0,
        losses=module_losses(told),
        calibration=calibration_used(told),
        note=made.after.note,
        resumed=layers_resumed(told),
    )


def _tokens(text: Path) -> int:
    return tokens_written(read_built(text.parent))


def _size(prepared: Prepared) -> tuple[int | None, int | None]:
    """Bytes and elements of the tensors; None where the files do not tell."""
    try:
        files = headers.read(Named(prepared.model, prepared.revision), fetch=False)
    except UserError:
        return None, None
    return files.bytes, sum(tensor.elements for tensor in files.tensors.values())


@dataclass(frozen=True)
class _Read:
    """What a model made of the text."""

    nll: Values
    """Negative log-likelihood of each scored token, nats."""
    windows: int
    ids_sha256: str
    """Of the tokens."""

    @property
    def perplexity(self) -> Perplexity:
        found = quality.perplexity(self.nll, self.windows)
        return Perplexity(found.value, found.error, found.clustered, len(self.nll))

    def more_than(self, other: _Read) -> Quantity | None:
        """Its perplexity less that of `other`; None where that one read other tokens."""
        if self.ids_sha256 != other.ids_sha256:
            return None
        return quality.perplexity_difference(self.nll, other.nll, self.windows)


async def _read(
    spec: AnyVariant,
    place: Prepared,
    text: Path,
    window: int,
    title: str,
    on_progress: Callable[[Progress], None],
    start: StartWorker,
) -> _Read:
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
    return _Read(nll, len(nll) // (window - result.context), result.ids_sha256)
