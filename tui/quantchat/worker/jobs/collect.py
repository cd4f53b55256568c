"""Calibration text that the user names: a file, or a data set on the Hugging Face hub."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quantchat.common.calibration_text import Record, read, record
from quantchat.common.input_files import Unreadable
from quantchat.worker.failures import Refused, first_line
from quantchat.worker.jobs import Report
from quantchat.worker.jobs.calibration_io import ids, write
from quantchat.worker.jobs.calibration_size import CalibrationSize, calibration_size
from quantchat.worker.jobs.job_env import local_folder, settle, tokenizer_for
from quantchat.worker.jobs.layer_widths import widest_of
from quantchat.worker.model.devices import choose_device

ROWS = 20
"""Rows of a data set that are looked at for each sample that is wanted."""


def run(options: dict[str, Any], report: Report) -> dict[str, Any]:
    """Take samples out of `file` or `dataset`, and write `chats.jsonl` into the folder `output`.

    A chat is one sample; longer text is cut into pieces of `sample_tokens` tokens of `model`'s
    tokenizer. They are shuffled by `seed`. The first `held_out` are held apart, and so a quarter at
    most of what there is: with `part` "held out" these are written, else up to `samples` of the
    others. Where `samples` or `sample_tokens` is None it is as `calibration_size` has it. `file`
    must still have the hash `sha256`; `dataset` is `hub:name[:split[:column]]`. `tokenizer` and
    `chat_template_kwargs` are as in a profile, and may be left out.

    Result: `samples` written, their `tokens`, how many there were (`found`), and the `length` in
    tokens that they are cut after. Raises Refused.
    """
    report(0, 0, "reading")
    settle(options)
    folder = local_folder(options, report)
    tokenizer = tokenizer_for(options, folder)
    wanted = calibration_size(options, choose_device(options["device"]), _widest(options, folder))
    many = wanted.most + options["held_out"]
    records = _of_file(options) if options.get("file") else _of_dataset(options, many)
    pieces = [piece for one in records for piece in _cut(one, tokenizer, wanted.length)]
    random.Random(options["seed"]).shuffle(pieces)  # noqa: S311
    held_out = min(options["held_out"], len(pieces) // 4)
    held, rest = pieces[:held_out], pieces[held_out:]
    template = options.get("chat_template_kwargs", {})
    chosen = held if options["part"] == "held out" else _first(rest, wanted, tokenizer, template)
    told = write(chosen, tokenizer, Path(options["output"]), template)
    return {**told, "found": len(pieces), "length": wanted.length}


def _widest(options: dict[str, Any], folder: str) -> int:
    """Inputs of the widest layer, where that is to decide on the number of samples."""
    if options["samples"]:
        return 0
    from transformers import AutoConfig

    return widest_of(AutoConfig.from_pretrained(folder, trust_remote_code=options["trusted"]))


def _first(
    pieces: list[Record], wanted: CalibrationSize, tokenizer: Any, template: dict[str, Any]
) -> list[Record]:
    """As many of `pieces` as are `wanted`, from the first on."""
    chosen: list[Record] = []
    tokens = 0
    for piece in pieces:
        if len(chosen) >= wanted.samples and tokens >= wanted.tokens:
            break
        chosen.append(piece)
        if wanted.tokens:
            tokens += len(ids(piece, tokenizer, wanted.length, template))
    return chosen


def _of_file(options: dict[str, Any]) -> list[Record]:
    try:
        records, sha256 = read(Path(options["file"]))
    except (OSError, Unreadable) as error:
        raise Refused("bad_calibration", f"{options['file']}: {error}") from error
    if sha256 != options["sha256"]:
        raise Refused("bad_calibration", f"{options['file']} has just changed", "start again")
    return records


def _of_dataset(options: dict[str, Any], wanted: int) -> list[Record]:
    import datasets

    _, name, split, column = (*options["dataset"].split(":"), "", "")[:4]
    try:
        rows: Iterator[dict[str, Any]] = iter(
            datasets.load_dataset(name, split=split or "train", streaming=True).shuffle(
                seed=options["seed"], buffer_size=1000
            )
        )
        first = next(rows, {})
        column = column or _column(first)
        if column not in first:
            raise Refused(
                "bad_calibration",
                f"the data set {name} has no column {column!r}",
                f"one of: {', '.join(map(str, first))}",
            )
        taken = itertools.islice(itertools.chain([first], rows), ROWS * wanted)
        return list(_records(row[column] for row in taken))
    except Refused:
        raise
    except Exception as error:
        raise Refused(
            "fetch_failed",
            f"cannot read the data set {name}: {first_line(error)}",
            "check its name, split and the network; for a gated one `hf auth login`; or calibrate"
            " on a file",
        ) from error


def _column(row: dict[str, Any]) -> str:
    """The column to take where none is named: chats first, then text."""
    return next((name for name in ("messages", "conversation", "text") if name in row), "text")


def _records(cells: Iterator[Any]) -> Iterator[Record]:
    """The cells that hold something: data sets have empty rows."""
    for cell in cells:
        try:
            yield record(cell)
        except Unreadable:
            continue


def _cut(one: Record, tokenizer: Any, tokens: int) -> Iterator[Record]:
    """A chat as it is; a text in pieces of `tokens` tokens, the last one shorter."""
    if "messages" in one:
        if not tokenizer.chat_template:
            raise Refused(
                "bad_calibration",
                "the calibration holds chats, and the model has no chat template",
                "calibrate such a model on plain text",
            )
        yield one
        return
    text = one["text"]
    spans = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    for start in range(0, len(spans), tokens):
        piece = spans[start : start + tokens]
        if text[piece[0][0] : piece[-1][1]].strip():
            yield {"text": text[piece[0][0] : piece[-1][1]]}
