"""Chats as the model reads them, and as they are kept."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from quantchat.common.calibration_text import Record
from quantchat.wire.jobs import CHATS, CHATS_TEXT
from quantchat.worker.model.chat_template import as_wanted


def write(
    records: Iterable[Record], tokenizer: Any, folder: Path, template: dict[str, Any]
) -> dict[str, int]:
    """Put `records` into `folder`, a line of JSON each, and the text they are beside them.

    `template`: variables of the model's chat template.
    Returns `samples`, and the `tokens` of the text.
    """
    records = list(records)
    body = "".join(json.dumps(one) + "\n" for one in records)
    (folder / CHATS).write_text(body, encoding="utf-8")
    text = "\n".join(rendered(one, tokenizer, template)[0] for one in records)
    (folder / CHATS_TEXT).write_text(text, encoding="utf-8")
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return {"samples": len(records), "tokens": len(ids)}


def ids(
    one: Record, tokenizer: Any, most: int | None = None, template: dict[str, Any] | None = None
) -> list[int]:
    """Token ids of a record, `most` at most."""
    text, whole = rendered(one, tokenizer, template or {})
    found: list[int] = tokenizer(text, add_special_tokens=not whole, verbose=False)["input_ids"]
    return found[:most]


def rendered(one: Record, tokenizer: Any, template: dict[str, Any]) -> tuple[str, bool]:
    """A chat in the model's template, or a text; and whether it has its special tokens already."""
    if "messages" not in one:
        return str(one["text"]), False
    chat = as_wanted(tokenizer, one["messages"])
    return str(tokenizer.apply_chat_template(chat, tokenize=False, **template)), True
