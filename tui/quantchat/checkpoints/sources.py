"""Resolve the key `model` of a profile to a folder or an id on the hub."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from quantchat.engines.table import is_path
from quantchat.errors import UserError
from quantchat.text import one_line

_SMALL = 2**20
"""A file of at most this many bytes is hashed by content, a larger one by size and modification
time."""


@dataclass(frozen=True)
class ModelName:
    """A model that the user names: the absolute path of a folder, or an id on the hub."""

    model: str
    revision: str | None = None

    @property
    def folder(self) -> Path | None:
        """The model's folder; None for an id on the hub."""
        return Path(self.model) if Path(self.model).is_absolute() else None

    @property
    def slug(self) -> str:
        """The model's short name for file names: lower-case letters, digits, dots and dashes."""
        return (
            re.sub(r"[^a-z0-9.]+", "-", Path(self.model).name.lower()).strip("-.")[:60] or "model"
        )

    def identity(self) -> str:
        """Return a string that identifies the weights, without reading all of them.

        For the hub: the id with its revision. For a folder: a SHA-256 over the file names, the
        sizes, the content of small files and the modification time of large files. Raises
        UserError if the folder cannot be read.
        """
        if self.folder is None:
            return f"{self.model}@{self.revision or 'main'}"
        try:
            return f"sha256:{_folder_hash(self.folder)}"
        except OSError as error:
            raise UserError(
                f"cannot be read: {error.strerror}",
                where=one_line(str(error.filename or self.model)),
                hint="change its permissions, or name another folder",
            ) from error


def _folder_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(f for f in folder.iterdir() if f.is_file()):
        state = file.stat()
        digest.update(f"{file.name}:{state.st_size}:".encode())
        small = state.st_size <= _SMALL
        digest.update(file.read_bytes() if small else str(state.st_mtime_ns).encode())
    return digest.hexdigest()


def model_name(model: str) -> ModelName:
    """Return the model that a profile's `model` names, without checking that it exists."""
    if is_path(model):
        return ModelName(model)
    name, _, revision = model.partition("@")
    return ModelName(name, revision or None)


def existing_model(model: str) -> ModelName:
    """Return the model that a profile's `model` names, other than the demo's model.

    Raises UserError if `model` is a path and no folder exists there.
    """
    if not is_path(model):
        return model_name(model)
    try:
        path = Path(model).expanduser().absolute()
        if path.is_dir():
            return ModelName(str(path))
        what = "is a file, but a model must be a folder" if path.is_file() else "no such folder"
    except (OSError, ValueError, RuntimeError) as error:  # too long, or `~` of an unknown user
        what = str(error)
    raise UserError(
        one_line(what),
        where=one_line(model),
        hint="name a folder that holds a model (config.json and *.safetensors)",
    )
