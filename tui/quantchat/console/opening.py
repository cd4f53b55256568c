"""Turns the arguments of `quantchat` into a profile: a saved one, or one built from models."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from quantchat.errors import UserError
from quantchat.text import one_line

if TYPE_CHECKING:
    from quantchat.profile.model import AnyVariant, Profile
    from quantchat.session.from_models import CheckpointToBuild


def profile_of(
    words: Sequence[str],
    methods: str = "",
    gptq: str | None = None,
    *,
    save: Path | None = None,
    yes: bool = False,
    others: Sequence[str] = (),
) -> Profile:
    """Return the profile that `words` name, or build a profile from the models that they name.

    `words`, `methods` and `gptq` are the arguments of `quantchat`. A built profile is written to
    the file `save`. If a checkpoint has to be made, asks on the terminal, unless `yes`. `others`
    are further valid words, such as commands: if a word is unknown, the error suggests a similar
    one. Raises UserError, and click.Abort if the user answers no.
    """
    from quantchat.profile import library
    from quantchat.profile.load import load

    of_models = bool(methods or gptq or save)
    if len(words) == 1 and not of_models and library.names_profile(words[0]):
        return load(library.find(words[0], others=others))
    from quantchat.session import from_models

    chosen = [method.strip() for method in methods.split(",") if method.strip()]
    profile = from_models.profile_of(words, methods=chosen, gptq=gptq, others=others)
    if save is not None:
        _save(profile, save)
    if not yes:
        for making in from_models.checkpoints_to_build(profile):
            _ask(making)
    return profile


def with_pair(profile: Profile, pair: str) -> Profile:
    """Return `profile` with the two variants that `pair` names in front of the others.

    `pair` names each of the two by its label, or by a letter for its place in the profile (`A`,
    `b`, …), with a comma between them; a label may contain commas. If `pair` is empty, the order
    stays. Prints the labels of the other variants, which will not be compared. Raises UserError.
    """
    chosen = _two(profile, pair) if pair else list(profile.variants[:2])
    others = [variant for variant in profile.variants if variant not in chosen]
    if others:
        labels = ", ".join(one_line(variant.label) for variant in others)
        click.echo(f"quantchat: left out: {labels} (choose with --variants)", err=True)
    return profile.model_copy(update={"variants": [*chosen, *others]})


def _two(profile: Profile, pair: str) -> list[AnyVariant]:
    from quantchat.snapshot.compared_sides import column_letter

    by_name = {column_letter(place): one for place, one in enumerate(profile.variants)}
    by_name |= {one.label.casefold(): one for one in profile.variants}
    words = pair.casefold().split(",")
    for end in range(1, len(words)):
        names = (",".join(words[:end]).strip(), ",".join(words[end:]).strip())
        found = [by_name[name] for name in names if name in by_name]
        if len(found) == 2 and found[0] is not found[1]:
            return found
    known = ", ".join(
        f"{column_letter(place).upper()} = {one_line(one.label)}"
        for place, one in enumerate(profile.variants)
    )
    raise UserError(
        "does not name two variants of the profile",
        where=f"--variants {one_line(pair)}",
        hint=f"give two of these with a comma between: {known}",
    )


def _save(profile: Profile, path: Path) -> None:
    from quantchat.profile.toml_out import to_toml

    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(to_toml(profile))
    except FileExistsError:
        raise UserError(
            "already exists", where=one_line(str(path)), hint="choose another file name"
        ) from None
    except OSError as error:
        raise UserError(
            f"cannot be written: {error.strerror or error}", where=one_line(str(path))
        ) from None


def _ask(making: CheckpointToBuild) -> None:
    """Show the cost of making a checkpoint, and ask whether to make it.

    Raises click.Abort if the user answers no, and UserError if there is no terminal.
    """
    from quantchat import paths

    cache = paths.cache_dir()
    place = next((f for f in (cache, *cache.parents) if f.is_dir()), Path("/"))
    free = shutil.disk_usage(place).free
    took = "not known: no checkpoint was made on this machine yet"
    if making.seconds is not None:
        took = f"about {_duration(making.seconds)}, estimated from the last one on this machine"
    click.echo(
        f"{one_line(making.label)} of {one_line(making.model)} must first be made on this"
        " machine:\n"
        f"  read    {_gb(making.reads)} of weights (downloaded if they are not cached)\n"
        f"  write   {_gb(making.writes)} to {one_line(str(cache))}, where {_gb(free)} are free\n"
        f"  time    {took}\n"
        "To avoid this, name a finished checkpoint with --gptq MODEL, or use --with nf4,bf16.",
        err=True,
    )
    if not sys.stdin.isatty():
        raise UserError(
            "a checkpoint must be made first, and there is no terminal to confirm it",
            hint="add --yes to make it without asking",
        )
    click.confirm("Make it?", default=True, abort=True, err=True)


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
