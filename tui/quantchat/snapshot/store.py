"""The folder of snapshots: save one, load one, list the newest."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from quantchat import paths
from quantchat.errors import UserError
from quantchat.files import is_folder, write_new, write_whole
from quantchat.snapshot.schema import SCHEMA_VERSION, Snapshot
from quantchat.text import one_line
from quantchat.wire.codec import LARGEST_INTEGER
from quantchat.wire.redaction import redactor

LIST_BYTES = 32 * 2**20
"""A larger file is listed by its name alone, because reading it would delay the list."""

_SUFFIX = ".json"


def save(snapshot: Snapshot, folder: Path | None = None, *, mark: str = "") -> Path:
    """Write `snapshot` into `folder` (by default the user's) and return the new file.

    Only the user can read the file. It is written whole or not at all, and never replaces another
    file; its name ends in `mark` and `.json`. If `folder` itself ends in `.json` and is not a
    folder, it is the file to write: an older snapshot of that name is replaced, and the user's
    umask decides who can read it. Raises UserError if the file cannot be written. If `loads` would
    refuse the data, the data goes into a file that is not listed as a snapshot, and UserError names
    that file.
    """
    file = folder if folder is not None and names_file(folder) else None
    folder = file.parent if file else folder
    name = file.name if file else f"{_stem(snapshot)}{mark}{_SUFFIX}"
    data = dumps(snapshot)
    try:
        loads(data, where="")
    except UserError as error:
        place = save_file(folder, f"{name}.unreadable", data, what="the snapshot")
        raise UserError(
            f"cannot be saved as a snapshot: {error.what}",
            where=str(place),
            hint="the file has all the data; this is a bug in quantchat, please report it",
        ) from error
    if file is None:
        return save_file(folder, name, data, what="the snapshot")
    try:
        return write_whole(file, data, private=False)
    except OSError as error:
        raise _cannot_save("the snapshot", file, error) from error


def names_file(path: Path) -> bool:
    """Return whether `path`, where a snapshot is to be saved, means a file and not a folder."""
    return path.suffix == _SUFFIX and not is_folder(path)


def save_file(folder: Path | None, name: str, data: bytes, *, what: str) -> Path:
    """Write `data` into a new private file `name` in `folder` and return the file.

    `folder` is the user's folder of snapshots by default. `what` names the data in error messages.
    Raises UserError.
    """
    folder = folder or paths.snapshots_dir()
    try:
        paths.private(folder)
        return write_new(folder / name, data)
    except OSError as error:
        raise _cannot_save(what, folder, error) from error


def make_ready(folder: Path | None = None) -> None:
    """Create `folder`, by default the user's, and check that a snapshot can be saved there.

    `folder` may be a file (see `save`). Commands call this before work that may take hours.
    Raises UserError.
    """
    folder = folder or paths.snapshots_dir()
    try:
        if names_file(folder):
            if folder.exists() and (problem := _listed(folder).problem):
                raise UserError(
                    f"exists and is not a snapshot: {problem}",
                    where=str(folder),
                    hint="name another file",
                )
            folder = folder.parent
            if not folder.is_dir():
                raise NotADirectoryError(errno.ENOENT, os.strerror(errno.ENOENT))
        else:
            paths.private(folder)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise _cannot_save("the snapshot", folder, error) from error


def _cannot_save(what: str, folder: Path, error: OSError) -> UserError:
    return UserError(
        f"cannot save {what}: {error.strerror or error}",
        where=str(folder),
        hint="name another folder with --save or --snapshots",
    )


def dumps(snapshot: Snapshot) -> bytes:
    """Return the content of the file: one line of JSON.

    It is pure ASCII: escapes preserve every character of a model's text, and keep control
    characters from a terminal on which the file is printed. Values of secret environment variables
    are redacted. A number that is too large for `loads` becomes the largest allowed one.
    """
    body = _writable(snapshot.model_dump(), redactor())
    text = json.dumps(body, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.encode("ascii") + b"\n"


_FORMAT_WORDS = frozenset(
    ("bfloat16", "exllama_v2", "flash_attention_2", "int8-dynamic", "server_unreachable")
)
"""Words of the format that are never redacted, even if a secret in the environment equals one."""


def _writable(value: Any, redact: Callable[[str], str]) -> Any:
    """Return a copy of parsed JSON without secrets in its strings, and with bounded numbers."""
    if type(value) is int:
        return max(-LARGEST_INTEGER, min(value, LARGEST_INTEGER))
    if isinstance(value, str):
        return value if value in _FORMAT_WORDS else redact(value)
    if isinstance(value, dict):
        return {
            key: item
            if key in _FIXED_FORMAT and _FIXED_FORMAT[key](item)
            else _writable(item, redact)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_writable(item, redact) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        # NaN becomes null, "not known". If the schema allows no null here, `save` reports the
        # snapshot as unreadable.
        return None if math.isnan(value) else math.copysign(sys.float_info.max, value)
    return value


def _is_time(value: Any) -> bool:
    try:
        return bool(datetime.fromisoformat(value))
    except (TypeError, ValueError):
        return False


_FIXED_FORMAT: dict[str, Callable[[Any], bool]] = {
    "created": _is_time,
    "right": lambda value: isinstance(value, str) and not value.strip("01"),
}
"""Key whose strings have a fixed format → function that checks this format. These strings are not
redacted: a secret made of digits may occur in them by chance."""


def load(path: Path) -> Snapshot:
    """Return the snapshot at `path`. Raises UserError with one line on what is wrong with it."""
    return loads(_read(path), where=str(path))


def loads(data: bytes, *, where: str) -> Snapshot:
    """Return the snapshot in `data`. `where` names it in error messages. Raises UserError."""
    body = _parsed(data, where)
    _check_version(body, where)
    try:
        return Snapshot.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        problem = first["msg"].removeprefix("Value error, ")
        raise UserError(
            one_line(
                f"is not a snapshot: {key}: {problem}" if key else f"is not a snapshot: {problem}"
            ),
            where=where,
            hint="give a snapshot that quantchat saved",
        ) from None
    except RecursionError:
        raise UserError("is not a snapshot: nested too deeply", where=where) from None


_KINDS = {
    "pick": "pick",
    "measurement": "measurement",
    "voting": "votes",
    "score": "score",
    "evaluation": "tasks",
    "load_test": "load",
}
"""Key that a snapshot has → its kind. A snapshot with none of these keys is a chat."""


@dataclass(frozen=True)
class SnapshotSummary:
    """An entry of the list: the main facts of a snapshot file, or why it cannot be read."""

    path: Path
    created: str = ""
    """When the snapshot was taken: ISO 8601, with the time zone."""
    name: str = ""
    """Name of the profile."""
    variants: tuple[str, ...] = ()
    """Labels of the left and the right variant."""
    turns: int = 0
    kind: str = ""
    """chat, measurement, votes, score, tasks, load or pick."""
    problem: str = ""
    cure: str = ""
    """What to do about the problem."""


def recent(folder: Path | None = None, count: int | None = None) -> list[SnapshotSummary]:
    """Return the `count` newest snapshots of `folder`, by default all, the newest first.

    The order is by file name, which begins with the time. Only the listed files are read. A broken
    file is listed with its problem.
    """
    return [_listed(path) for path in newest(folder)[:count]]


def newest(folder: Path | None = None) -> list[Path]:
    """Return the snapshot files of `folder`, by default the user's, the newest name first."""
    folder = folder or paths.snapshots_dir()
    names = sorted(_names(folder), key=lambda name: (Path(name).stem, name), reverse=True)
    return [folder / name for name in names]


def _names(folder: Path) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(_SUFFIX) and not entry.name.startswith("."):
                    yield entry.name
    except OSError:  # the folder does not exist yet, or cannot be read
        return


def _listed(path: Path) -> SnapshotSummary:
    try:
        if path.stat().st_size > LIST_BYTES:
            problem = "very large, not read for the list"
            return SnapshotSummary(
                path, problem=problem, cure="`quantchat snapshots show` reads it"
            )
        body = _parsed(_read(path), str(path))
        _check_version(body, str(path))
    except UserError as error:
        return SnapshotSummary(path, problem=error.what, cure=error.hint or _REMOVE)
    except OSError as error:
        return SnapshotSummary(path, problem=error.strerror or str(error), cure=_REMOVE)
    created, name = body.get("created"), body.get("name")
    shown, turns = body.get("shown"), body.get("turns")
    if not (
        isinstance(created, str)
        and isinstance(name, str)
        and isinstance(shown, list)
        and isinstance(turns, list)
    ):
        return SnapshotSummary(path, problem="is not a snapshot", cure=_REMOVE)
    labels = tuple(str(label) for label in shown)
    kind = next((kind for key, kind in _KINDS.items() if body.get(key) is not None), "chat")
    return SnapshotSummary(path, created, name, labels, len(turns), kind)


_REMOVE = "remove it, or move it elsewhere"
"""What to do with a file among the snapshots that is not a snapshot, or a broken one."""


# ------------------------------------------------------------ reading


def _read(path: Path) -> bytes:
    try:
        # Check this before opening, because opening a FIFO would wait for its writer.
        if not stat.S_ISREG(path.stat().st_mode):
            raise UserError(
                "is a folder" if path.is_dir() else "is not a regular file", where=str(path)
            )
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else None
        raise UserError(f"cannot be read: {reason or error}", where=str(path)) from error


def _check_version(body: dict[str, Any], where: str) -> None:
    """Raise UserError for a version of the schema that this quantchat does not read."""
    version = body.get("schema_version", SCHEMA_VERSION)
    if type(version) is not int or version < 1:
        raise UserError(
            one_line(f"is not a snapshot: its schema_version is {json.dumps(version)[:40]}"),
            where=where,
            hint="give a snapshot that quantchat saved",
        )
    if version > SCHEMA_VERSION:
        raise UserError(
            f"written by a newer quantchat (schema {version}, this one reads {SCHEMA_VERSION})",
            where=where,
            hint="update quantchat",
        )


def _parsed(data: bytes, where: str) -> dict[str, Any]:
    """Return the JSON object in `data`. Raises UserError."""
    if not data.strip():
        raise UserError("is empty", where=where)
    try:
        body = json.loads(data, parse_constant=_no_number, parse_float=_finite, parse_int=_sized)
    except json.JSONDecodeError as error:
        if error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated"):
            what = "is cut short: the end of the JSON is missing"
        else:
            what = f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        raise UserError(what, where=where) from None
    except UnicodeDecodeError:
        raise UserError("is not JSON: no Unicode text", where=where) from None
    except ValueError as error:
        raise UserError(f"is not JSON: {error}", where=where) from None
    except RecursionError:
        raise UserError("is not a snapshot: nested too deeply", where=where) from None
    if not isinstance(body, dict):
        raise UserError("is not a snapshot: not a JSON object", where=where)
    return body


def _no_number(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:40]} is too large a number")
    return value


def _sized(digits: str) -> int:
    value = int(digits[:21])  # reading all digits could take long
    if abs(value) > LARGEST_INTEGER:
        raise ValueError(f"{digits[:40]} is too large a number")
    return value


# ------------------------------------------------------------ writing


def _stem(snapshot: Snapshot) -> str:
    """Return the beginning of a file name: the time in UTC, and the profile's name.

    In UTC, names sort by time even if the user changes the time zone.
    """
    created = datetime.fromisoformat(snapshot.created).astimezone(timezone.utc)
    slug = re.sub(r"[^a-z0-9]+", "-", snapshot.name.lower()).strip("-")[:40] or "snapshot"
    return f"{created:%Y%m%dT%H%M%SZ}-{slug}"
