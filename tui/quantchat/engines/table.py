"""The base class and field types of a profile's tables."""

from __future__ import annotations

import re
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?(@(?!/|.*\.\.)[\w./-]+)?", re.ASCII)
"""Matches a hub id with an optional revision. A revision is also a path in the hub's cache, so it
must not lead out of the cache (`..`)."""

Line = Annotated[str, Field(min_length=1, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
"""Text on one line, without control characters."""


def is_path(text: str) -> bool:
    """Return whether `text` is a path and not a Hugging Face id or a command's name."""
    return text.startswith(("/", "./", "../", "~")) or text in (".", "..")


def folder_or_hub_id(value: str) -> str:
    """Return `value` if it is a path or a Hugging Face id. Raises ValueError."""
    if not is_path(value) and not _HUB_ID.fullmatch(value):
        raise ValueError(
            "must be a folder, which begins with ./, ../, ~ or /, or a Hugging Face id, "
            "org/name or org/name@revision"
        )
    return value


FolderOrHubId = Annotated[Line, AfterValidator(folder_or_hub_id)]
"""The folder or hub id of a model, an adapter or a tokenizer."""


def _inside(value: str) -> str:
    if value.startswith("/") or ".." in value.split("/"):
        raise ValueError("must be a file inside the model's folder, such as model-q4_1.gguf")
    return value


GgufFile = Annotated[Line, AfterValidator(_inside)]
"""The name of a GGUF file inside a model's folder or repository."""


class Table(BaseModel):
    """A table of a profile: frozen, with strict types and no unknown keys."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        defer_build=True,  # most tables are validated only as parts of a profile
        protected_namespaces=(),
    )


def inner_tables(table: type[BaseModel]) -> dict[str, type[Table]]:
    """Return the tables nested in `table`, by key, including optional ones."""
    found: dict[str, type[Table]] = {}
    for key, field in table.model_fields.items():
        kinds: tuple[Any, ...] = get_args(field.annotation) or (field.annotation,)
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, Table):
                found[key] = kind
    return found
