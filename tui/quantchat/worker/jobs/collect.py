"""Takes calibration samples from a file or from a data set on the Hugging Face hub."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quantchat.common.calibration_text import Record, read, record
from quantchat.common.input_files import Unreadable
from quantchat.wire.jobs import CollectSamplesJob, CollectSamplesResult
from quantchat.wire.messages import LoadModel
from quantchat.worker.failures import Refused, first_line
from quantchat.worker.jobs.calibration_io import ids, write
from quantchat.worker.jobs.calibration_size import CalibrationSize, calibration_size
from quantchat.worker.jobs.job_env import (
    prepare_process,
    tokenizer_for,
    with_local_files,
)
from quantchat.worker.jobs.layer_widths import widest_of
from quantchat.worker.model.devices import choose_device
from quantchat.worker.report import Report

_ROWS_PER_SAMPLE = 20
"""Most rows of a data set that are read for each required sample; some rows may be unusable."""


def run(job: CollectSamplesJob, report: Report) -> CollectSamplesResult:
    """Take samples from the file or data set, and write them into the output folder.

    `job.held_out` of the samples, at most a quarter, are set aside for measuring the quantized
    model; `job.part` says whether these or the calibration samples are written. Raises Refused if
    the file or data set cannot be read, or has no calibration text.
    """
    report(0, 0, "reading")
    prepare_process(job.workspace)
    load = with_local_files(job.load, report)
    tokenizer = tokenizer_for(load)
    wanted = calibration_size(
        job.samples, job.sample_tokens, choose_device(load.device), _widest(job, load)
    )
    records = _of_file(job) if job.file else _of_dataset(job, wanted.full_samples + job.held_out)
    pieces = [piece for one in records for piece in _cut(one, tokenizer, wanted.length)]
    random.Random(job.seed).shuffle(pieces)  # noqa: S311
    held_out = min(job.held_out, len(pieces) // 4)
    held, rest = pieces[:held_out], pieces[held_out:]
    template = load.template_variables
    chosen = held if job.part == "held out" else _first(rest, wanted, tokenizer, template)
    written = write(chosen, tokenizer, Path(job.workspace.output), template)
    return CollectSamplesResult(written.samples, written.tokens, len(pieces), wanted.length)


def _widest(job: CollectSamplesJob, load: LoadModel) -> int:
    """Return the number of inputs of the widest layer; 0 if the number of samples is given."""
    if job.samples:
        return 0
    from transformers import AutoConfig

    return widest_of(
        AutoConfig.from_pretrained(load.model, trust_remote_code=load.trust_remote_code)
    )


def _first(
    pieces: list[Record], wanted: CalibrationSize, tokenizer: Any, template: dict[str, object]
) -> list[Record]:
    """Return as many of the first `pieces` as the calibration size `wanted` requires."""
    chosen: list[Record] = []
    tokens = 0
    for piece in pieces:
        if len(chosen) >= wanted.samples and tokens >= wanted.tokens:
            break
        chosen.append(piece)
        if wanted.tokens:
            tokens += len(ids(piece, tokenizer, wanted.length, template))
    return chosen


def _of_file(job: CollectSamplesJob) -> list[Record]:
    try:
        records, sha256 = read(Path(job.file))
    except (OSError, Unreadable) as error:
        raise Refused("bad_calibration", f"{job.file}: {error}") from error
    if sha256 != job.sha256:
        raise Refused(
            "bad_calibration", f"{job.file} changed after the job was started", "start again"
        )
    return records


def _of_dataset(job: CollectSamplesJob, wanted: int) -> list[Record]:
    """Return the records of up to `_ROWS_PER_SAMPLE` × `wanted` shuffled rows of the data set.

    Raises Refused if the data set cannot be read, or has no such column.
    """
    import datasets

    _, name, split, column = (*job.dataset.split(":"), "", "")[:4]
    try:
        rows: Iterator[dict[str, object]] = iter(
            datasets.load_dataset(name, split=split or "train", streaming=True).shuffle(
                seed=job.seed, buffer_size=1000
            )
        )
        first = next(rows, {})
        column = column or _column(first)
        if column not in first:
            raise Refused(
                "bad_calibration",
                f"the data set {name} has no column {column!r}",
                f"name one of its columns: {', '.join(map(str, first))}",
            )
        taken = itertools.islice(itertools.chain([first], rows), _ROWS_PER_SAMPLE * wanted)
        return list(_records(row[column] for row in taken))
    except Refused:
        raise
    except Exception as error:
        raise Refused(
            "fetch_failed",
            f"cannot read the data set {name}: {first_line(error)}",
            "check its name, its split and the network; for a gated data set run `hf auth login`;"
            " or calibrate on a file",
        ) from error


def _column(row: dict[str, object]) -> str:
    """Return the column to read if none is named: one with chats, else one with text."""
    return next((name for name in ("messages", "conversation", "text") if name in row), "text")


def _records(cells: Iterator[Any]) -> Iterator[Record]:
    """Yield the record in each cell; skip cells that are empty or hold no text or messages."""
    for cell in cells:
        try:
            yield record(cell)
        except Unreadable:
            continue


def _cut(one: Record, tokenizer: Any, tokens: int) -> Iterator[Record]:
    """Yield a chat unchanged, or a text in pieces of `tokens` tokens; the last may be shorter."""
    if "messages" in one:
        if not tokenizer.chat_template:
            raise Refused(
                "bad_calibration",
                "the calibration set has chats, but the model has no chat template",
                "calibrate this model on plain text",
            )
        yield one
        return
    text = one["text"]
    spans = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    for start in range(0, len(spans), tokens):
        piece = spans[start : start + tokens]
        if text[piece[0][0] : piece[-1][1]].strip():
            yield {"text": text[piece[0][0] : piece[-1][1]]}
