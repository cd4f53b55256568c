"""Writes calibration samples to files, and encodes them for the model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from quantchat.common.calibration_text import Record
from quantchat.wire.jobs import CHATS_FILE, CHATS_TEXT_FILE, CalibrateResult
from quantchat.worker.model.chat_template import with_content_form

CALIBRATION = "calibration.jsonl"
"""File in the checkpoint's folder with its calibration samples."""


def write(
    records: Iterable[Record], tokenizer: Any, folder: Path, template: Mapping[str, object]
) -> CalibrateResult:
    """Write `records` to `CHATS_FILE` and `CHATS_TEXT_FILE` in `folder`; count records and tokens.

    `template` has the variables of the model's chat template.
    """
    records = list(records)
    body = "".join(json.dumps(one) + "\n" for one in records)
    (folder / CHATS_FILE).write_text(body, encoding="utf-8")
    text = "\n".join(record_text(one, tokenizer, template)[0] for one in records)
    (folder / CHATS_TEXT_FILE).write_text(text, encoding="utf-8")
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return CalibrateResult(len(records), len(ids))


def keep(file: Path, folder: Path) -> str:
    """Copy the calibration samples in `file` into a checkpoint's `folder`; return their SHA-256."""
    body = file.read_bytes()
    (folder / CALIBRATION).write_bytes(body)
    return hashlib.sha256(body).hexdigest()


def ids(
    one: Record,
    tokenizer: Any,
    most: int | None = None,
    template: Mapping[str, object] | None = None,
) -> list[int]:
    """Return the token ids of a record, at most the first `most`; None: all.

    `template` has the variables of the model's chat template.
    """
    text, has_special = record_text(one, tokenizer, template or {})
    found: list[int] = tokenizer(text, add_special_tokens=not has_special, verbose=False)[
        "input_ids"
    ]
    return found[:most]


def read(
    file: Path, tokenizer: Any, most: int | None, template: Mapping[str, object]
) -> list[list[int]]:
    """Return the token ids of each record in `file`, at most the first `most` of each."""
    lines = file.read_text(encoding="utf-8").split("\n")
    return [ids(json.loads(line), tokenizer, most, template) for line in lines if line]


def record_text(one: Record, tokenizer: Any, template: Mapping[str, object]) -> tuple[str, bool]:
    """Return the text of a record, and whether a chat template has put special tokens in it."""
    if "messages" not in one:
        return str(one["text"]), False
    chat = with_content_form(tokenizer, one["messages"])
    return str(tokenizer.apply_chat_template(chat, tokenize=False, **template)), True
