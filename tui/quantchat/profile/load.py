"""Read a TOML file as a validated `Profile`, or report the mistakes in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from quantchat.common.input_files import Unreadable, decoded, read_regular
from quantchat.engines.registry import engine_of
from quantchat.engines.table import Table, is_path
from quantchat.errors import UserError
from quantchat.files import is_file, is_folder
from quantchat.profile.mistakes import Mistake, key_text, mistakes
from quantchat.profile.model import AnyVariant, Profile
from quantchat.profile.toml_text import KeyLines, KeyPath, TomlError, parse
from quantchat.text import one_line

MAX_BYTES = 256 * 1024
"""Largest profile that is read, in bytes. Even a long profile has only a few kilobytes."""

MAX_MISTAKES = 20
"""How many mistakes of one file are reported; the rest are only counted."""

_FOLDERS = ("model", "adapter", "tokenizer", "draft")
"""Keys of a variant whose value is a folder or an id on the hub; `model` is the first of them."""


AnyTable = TypeVar("AnyTable", bound=Table)


class ProfileError(UserError):
    """A file is not a valid profile.

    The message is the first of the mistakes `reported` and the number of the others; `lines` has
    all of `reported`. `more` is the number of further mistakes, which are only counted.
    """

    def __init__(self, reported: Sequence[UserError], more: int = 0) -> None:
        first = reported[0]
        super().__init__(first.what, where=first.where, hint=first.hint)
        self._lines = tuple(str(mistake) for mistake in reported)
        self._more = more

    def __str__(self) -> str:
        more = len(self._lines) - 1 + self._more
        return self._lines[0] + (f" … and {more} more" if more else "")

    @property
    def lines(self) -> tuple[str, ...]:
        """The mistakes, each as `file:line: key: what is wrong (how to fix it)`."""
        return (*self._lines, f"… and {self._more} more") if self._more else self._lines


def load(path: Path) -> Profile:
    """Read the profile at `path`; resolve relative paths in it against its own folder.

    Raises ProfileError.
    """
    return loads(read_text(path), where=str(path), folder=path.absolute().parent)


def check_paths_exist(profile: Profile, path: Path) -> None:
    """Check that the files and folders that `profile`, loaded from `path`, names exist.

    `load` does not check this, because variants whose files exist can run even if files of other
    variants are missing. Raises ProfileError.
    """
    found = [
        Mistake(("variants", index, *key), f"{why}: {named}", "")
        for index, variant in enumerate(profile.variants)
        for key, named, is_there, why in _named(variant)
        if not is_there(Path(named))
    ]
    if found:
        raise profile_error(found, str(path), read_text(path))


def _named(
    variant: AnyVariant,
) -> Iterator[tuple[KeyPath, str, Callable[[Path], bool], str]]:
    """Yield (key, path, existence test, error text) for each key of a variant that names a path."""
    # The files of a server need not be on this machine.
    for name in () if engine_of(variant).is_server else _FOLDERS:
        named = getattr(variant, name, None)
        if named is not None and is_path(named):
            yield (name,), named, is_folder, "no such folder"
    if variant.python and "/" in variant.python:
        yield ("python",), variant.python, is_file, "no such file"
    made = variant.calibration_table
    if made and made.calibration_file:
        yield ("quantize", "calibration"), made.calibration_file, is_file, "no such file"


def read_text(path: Path) -> str:
    """Return the text of the profile file at `path` with LF line ends. Raises ProfileError."""
    where = str(path)
    try:
        return decoded(read_regular(path, MAX_BYTES)).replace("\r\n", "\n")
    except OSError as error:
        raise _single(where, f"cannot be read: {error.strerror or error}") from error
    except Unreadable as error:
        raise _single(f"{where}:{error.line}", str(error), "save the file as UTF-8") from None


def loads(text: str, *, where: str, folder: Path) -> Profile:
    """Parse a profile from `text`; `where` names the file in error messages.

    Relative paths in it are resolved against `folder`. Raises ProfileError.
    """
    if not parse_toml(text, where):
        raise _single(where, "is empty", "`quantchat profiles new` writes a starting point")
    return _from_folder(validate(text, where, Profile), folder, where, text)


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """Return `text` parsed as TOML; `where` names the file. Raises ProfileError."""
    try:
        return parse(text)
    except TomlError as error:
        place = f"{where}:{error.line}" if error.line else where
        raise _single(place, error.what, error.hint) from None


def validate(text: str, where: str, model: type[AnyTable]) -> AnyTable:
    """Return the TOML in `text` validated as `model`; `where` names the file.

    Raises ProfileError with the line of each mistake.
    """
    try:
        return model.model_validate(parse_toml(text, where))
    except ValidationError as error:
        raise profile_error(list(mistakes(error, model)), where, text) from None


def _from_folder(profile: Profile, folder: Path, where: str, text: str) -> Profile:
    """Return `profile` with its paths resolved against `folder`. Raises ProfileError."""
    variants, found = [], list[Mistake]()
    for index, variant in enumerate(profile.variants):
        try:
            variants.append(_located(variant, folder))
        except RuntimeError:  # `~name` of an unknown user
            found.append(
                Mistake(
                    ("variants", index), "~ names a user who does not exist on this machine", ""
                )
            )
    if found:
        raise profile_error(found, where, text)
    return profile.model_copy(update={"variants": variants})


def _located(variant: AnyVariant, folder: Path) -> AnyVariant:
    paths: dict[str, object] = {}
    if is_path(variant.model) and not engine_of(variant).is_server:
        paths["model"] = _absolute(variant.model, folder)
    if variant.python and ("/" in variant.python or variant.python.startswith("~")):
        # Links are not resolved: Python finds its virtual environment by the path of the link.
        paths["python"] = _absolute(variant.python, folder)
    for name in _FOLDERS[1:]:
        named = getattr(variant, name, None)
        if named is not None and is_path(named):
            paths[name] = _absolute(named, folder)
    if (made := variant.calibration_table) and made.calibration_file:
        calibration = _absolute(made.calibration_file, folder)
        paths["quantize"] = made.model_copy(update={"calibration": calibration})
    return variant.model_copy(update=paths)


def _absolute(text: str, folder: Path) -> str:
    return str(folder / Path(text).expanduser())


def _single(where: str, what: str, hint: str = "") -> ProfileError:
    return ProfileError([_line(where, what, hint)])


def profile_error(mistakes_found: Sequence[Mistake], where: str, text: str) -> ProfileError:
    """Return an error with the first `MAX_MISTAKES` of `mistakes_found`, in the file's order.

    `where` names the file and `text` is its text.
    """
    keys = KeyLines(text)
    by_line = [(keys.find(m.path), m) for m in mistakes_found[:MAX_MISTAKES]]
    by_line.sort(key=lambda pair: (pair[0] is None, pair[0]))  # mistakes without a line come last
    lines = [
        _line(f"{where}:{line}" if line else where, f"{key_text(m.path)}: {m.what}", m.hint)
        for line, m in by_line
    ]
    return ProfileError(lines, len(mistakes_found) - len(lines))


def _line(where: str, what: str, hint: str) -> UserError:
    return UserError(one_line(what), where=one_line(where), hint=one_line(hint))
