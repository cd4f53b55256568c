"""A checkpoint made on command: what it came to, against the model it was made from."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantchat import paths
from quantchat.errors import UserError
from quantchat.host.worker_process import StartWorker, start_worker
from quantchat.profile.model import AnyVariant, BitsAndBytes, Gptq, Transformers
from quantchat.profile.quantize import Quantize
from quantchat.quantize import headers
from quantchat.quantize.cache import read_made
from quantchat.quantize.job import run_job
from quantchat.quantize.maker import Prepared
from quantchat.quantize.sources import Named
from quantchat.quantize.store import Workshop
from quantchat.worker.protocol import Load, Progress

WINDOW = 512
"""Tokens of a window that perplexity is taken in; the second half of each is scored."""

FEWEST = 64
"""Tokens that are too few for a perplexity."""


@dataclass(frozen=True)
class Perplexity:
    """Over the text that was held out, with its standard error, each token a unit."""

    value: float
    error: float
    positions: int
    """Tokens that were scored."""


@dataclass(frozen=True)
class Side:
    """The model before or after."""

    bytes: int | None
    """Of its tensors, as they lie in the files; None where the files do not tell."""
    perplexity: Perplexity | None
    """None where it was not taken."""


@dataclass(frozen=True)
class Outcome:
    """What a checkpoint came to."""

    folder: Path
    before: Side
    after: Side
    parameters: int | None
    """As trained; None where the files of the model do not tell."""
    seconds: float
    """What quantizing took, with loading and saving."""
    losses: list[dict[str, Any]]
    """Of GPTQ: `layer`, `module` and mean squared error `loss`, None where it only rounded."""
    calibration: dict[str, Any]
    """Of GPTQ: `samples`, `tokens` and `sha256` of what it was calibrated on."""
    note: str = ""
    resumed: int = 0
    """Layers that were quantized by an earlier try, and are not in `seconds`."""

    def bits_per_weight(self, side: Side) -> float | None:
        """Bits in the files for each parameter of the model, whatever is quantized of it."""
        if side.bytes is None or not self.parameters:
            return None
        return 8 * side.bytes / self.parameters


async def make(
    base: Transformers,
    spec: Gptq | BitsAndBytes,
    held_out: Quantize | None,
    on_progress: Callable[[Progress], None],
    *,
    workshop: Workshop | None = None,
    start: StartWorker = start_worker,
) -> Outcome:
    """Make the checkpoint of `spec`, and read the perplexity of `base` and its own.

    `held_out` says of which calibration the held-out part is read; None reads nothing. Raises
    MakeFailed or UserError. Cancelling keeps what is finished.
    """
    workshop = workshop or Workshop()
    before = await workshop.prepare(base, on_progress)
    after = await workshop.prepare(spec, on_progress)
    folder = Path(after.model)
    told = read_made(folder)
    found: list[Perplexity | None] = [None, None]
    if held_out is not None:
        text = await workshop.held_out(spec, held_out, on_progress)
        tokens = _tokens(text)
        for index, (variant, place) in enumerate(((base, before), (spec, after))):
            if tokens >= FEWEST:
                title = f"perplexity {'after' if index else 'before'}"
                found[index] = await _perplexity(
                    variant, place, text, min(WINDOW, tokens), title, on_progress, start
                )
    sizes, parameters = _size(before)
    return Outcome(
        folder=folder,
        before=Side(sizes, found[0]),
        after=Side(_size(after)[0], found[1]),
        parameters=parameters,
        seconds=told.seconds if told else 0.0,
        losses=told.result.get("losses", []) if told else [],
        calibration=told.result.get("calibration", {}) if told else {},
        note=after.note,
        resumed=told.result.get("resumed", 0) if told else 0,
    )


def _tokens(text: Path) -> int:
    told = read_made(text.parent)
    return int(told.result.get("tokens", 0)) if told else 0


def _size(prepared: Prepared) -> tuple[int | None, int | None]:
    """Bytes and elements of the tensors; None where the files do not tell."""
    try:
        files = headers.read(Named(prepared.model, prepared.revision), fetch=False)
    except UserError:
        return None, None
    return files.bytes, sum(tensor.elements for tensor in files.tensors.values())


async def _perplexity(
    spec: AnyVariant,
    place: Prepared,
    text: Path,
    window: int,
    title: str,
    on_progress: Callable[[Progress], None],
    start: StartWorker,
) -> Perplexity:
    load = Load(
        engine=spec.engine,
        model=place.model,
        revision=place.revision,
        options=spec.options,
        dtype=spec.dtype,
        device=spec.device,
        trust_remote_code=spec.trust_remote_code,
    )
    with tempfile.TemporaryDirectory(dir=paths.private(paths.cache_dir())) as scratch:
        options = {
            "load": dataclasses.asdict(load),
            "text": str(text),
            "tokens": 0,
            "window": window,
            "stride": window,
            "scratch": scratch,
        }
        on_progress(Progress(title))
        result = await run_job(
            start,
            "perplexity",
            options,
            lambda done, total, detail: on_progress(Progress(title, done, total, detail)),
        )
    return Perplexity(result["perplexity"], result["error"], result["positions"])
