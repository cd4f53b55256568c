"""The error for a word that names no profile, folder, file or model, with the places searched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from quantchat import paths
from quantchat.engines.table import is_path
from quantchat.errors import UserError
from quantchat.profile import library
from quantchat.profile.nearest import did_you_mean
from quantchat.text import one_line

_NEAREST = 3
"""How many similar names an error suggests at most."""


def not_found(
    word: str, others: Sequence[str] = (), hub_error: Exception | None = None
) -> UserError:
    """Return the error for `word`; its hint has similar names or the places that were searched.

    `others` are further valid words, such as commands; `hub_error` says why `word` is not a model
    of the hub.
    """
    if is_path(word) or word.endswith(".gguf"):
        near = did_you_mean(Path(word).name, _siblings(Path(word)), _NEAREST)
        kinds = "a GGUF file" if word.endswith(".gguf") else "a profile, a folder with a model"
        return UserError(
            "there is no such file or folder",
            where=one_line(word),
            hint=one_line(near) or f"name {kinds}, or a model of the hub (org/name)",
        )
    if "/" in word:
        near = did_you_mean(word, _models(), _NEAREST)
        what = "no folder has this name, and as a model of the hub"
        if isinstance(hub_error, UserError):
            what, cure = f"{what}: {hub_error.what}", hub_error.hint
        else:
            what, cure = f"{what}: {hub_error}", ""
        hint = f"{near} Otherwise: {cure}" if near and cure else near or cure
        return UserError(one_line(what), where=one_line(word), hint=one_line(hint))
    if word in library.names():
        return UserError(
            f'"{word}" is a profile',
            hint="--with, --gptq, --save-profile and further names can only be used with models",
        )
    what = "profile, command or folder" if others else "profile or folder"
    near = did_you_mean(word, [*library.names(), *others, *_siblings(Path(word))], _NEAREST)
    own = library.folder(library.Origin.OWN)
    places = (
        f"in ./profiles, {one_line(str(own))}, among the shipped profiles"
        " (`quantchat profiles` lists them) and in this folder; a model of the hub is org/name"
    )
    hint = f"{one_line(near)} Looked for {places}" if near else f"looked for {places}"
    return UserError(f'no {what} is called "{one_line(word)}"', hint=hint)


def _siblings(path: Path) -> list[str]:
    """Return the names of folders and GGUF files beside `path`, which does not exist."""
    try:
        beside = path.expanduser().parent
        return [one.name for one in beside.iterdir() if one.is_dir() or one.suffix == ".gguf"]
    except (OSError, RuntimeError, ValueError):  # `~` of an unknown user; a NUL; a path too long
        return []


def _models() -> Iterable[str]:
    """Return the names of hub models that are on this machine or that a profile names."""
    return dict.fromkeys([*_cached(), *_named()])


def _cached() -> Iterator[str]:
    try:
        folders = [one.name for one in paths.hub_cache().iterdir()]
    except OSError:
        return
    for name in folders:
        kind, _, model = name.partition("--")
        if kind == "models":
            yield model.replace("--", "/", 1)


def _named() -> Iterator[str]:
    for entry in library.entries():
        for variant in entry.profile.variants if entry.profile else ():
            if not is_path(variant.model):
                yield variant.model.partition("@")[0]
