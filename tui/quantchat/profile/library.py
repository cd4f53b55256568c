"""The library of profiles: find a profile by its name, and list all profiles.

A name is looked up in `./profiles`, then in the folder `profiles` of the user's config folder, then
among the profiles that come with quantchat; the first match is used. A word that contains a slash
or ends in `.toml` is the path of a file, not a name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import quantchat
from quantchat import paths
from quantchat.errors import UserError
from quantchat.profile.load import ProfileError, load
from quantchat.profile.model import Profile
from quantchat.profile.nearest import did_you_mean


class Origin(Enum):
    """The folders of profiles, in the order in which they are searched."""

    HERE = "./profiles"
    OWN = "your own"
    SHIPPED = "shipped"


@dataclass(frozen=True)
class Entry:
    """A profile of the library, or the reason why its file cannot be read."""

    name: str
    """The name that opens the profile: the file's name without `.toml`."""
    path: Path
    origin: Origin
    profile: Profile | None
    error: ProfileError | None


def folder(origin: Origin) -> Path:
    """Return the profile folder of `origin`, which need not exist.

    The shipped profiles are in `quantchat/shipped` of an installed wheel; in an editable install
    they are in `profiles` at the root of the repository.
    """
    if origin is Origin.HERE:
        return Path("profiles")
    if origin is Origin.OWN:
        return paths.config_dir() / "profiles"
    package = Path(quantchat.__file__).parent
    installed = package / "shipped"
    return installed if installed.is_dir() else package.parent.parent / "profiles"


def entries() -> list[Entry]:
    """Read all profiles in the library's folders; for a broken file, return its error instead."""
    listed = []
    for name, (origin, path) in _files().items():
        try:
            listed.append(Entry(name, path, origin, load(path), None))
        except ProfileError as error:
            listed.append(Entry(name, path, origin, None, error))
    return listed


def names() -> list[str]:
    """Return the names of all profiles without reading their files."""
    return list(_files())


def names_profile(word: str) -> bool:
    """Return whether `word` means a profile and not a model.

    These mean a profile: the name of a listed profile, a word that ends in `.toml`, and the path of
    a file that does not end in `.gguf`. A word that cannot be a path counts as a profile's name, so
    that `find` reports the mistake.
    """
    if word.endswith(".toml") or word in _files():
        return True
    try:
        return Path(word).expanduser().is_file() and not word.endswith(".gguf")
    except (OSError, RuntimeError, ValueError):  # `~` of an unknown user; NUL; too long a path
        return True


def find(word: str, *, others: Sequence[str] = ()) -> Path:
    """Return the profile file for `word`, a name or a path; a path need not exist.

    `others` are further valid words, such as commands, for the hint at a typo. Raises UserError.
    """
    if "/" in word or word.endswith(".toml") or word == "~":
        try:
            return Path(word).expanduser()
        except RuntimeError:
            raise UserError(
                "~ names a user who does not exist on this machine", where=word
            ) from None
    # Only listed names are opened, so no name can lead out of the profile folders.
    files = _files()
    if word in files:
        return files[word][1]
    also = " or command" if others else ""
    if os.path.lexists(word):  # False, not an error, if the word is too long for a file name
        hint = f"there is a file of this name: ./{word}"
    else:
        hint = did_you_mean(word, [*files, *others], limit=3)
    raise UserError(
        f'no profile{also} is called "{word}"', hint=hint or "`quantchat profiles` lists them"
    )


def _files() -> dict[str, tuple[Origin, Path]]:
    """Return origin and file of each profile, by name.

    They are ordered by origin, then by name. If a name is in several folders, the first is used.
    """
    found: dict[str, tuple[Origin, Path]] = {}
    for origin in Origin:
        for path in _listed(folder(origin)):
            found.setdefault(path.stem, (origin, path))
    return found


def _listed(directory: Path) -> Iterator[Path]:
    try:
        yield from sorted(p for p in directory.glob("*.toml") if not p.name.startswith("."))
    except OSError:  # the folder is missing or cannot be read
        return
