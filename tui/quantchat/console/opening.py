"""What the words after `quantchat` open: a profile, or a comparison made up from models."""

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
    from quantchat.profile.model import Profile
    from quantchat.session.from_models import Making


def profile_of(
    words: Sequence[str],
    methods: str = "",
    gptq: str | None = None,
    *,
    save: Path | None = None,
    yes: bool = False,
    others: Sequence[str] = (),
) -> Profile:
    """Return the profile that `words` name, or make one up from models.

    Asks on the terminal before a checkpoint is made here, unless `yes`. `save` is the file to write
    a comparison to that was made up. Raises UserError, and click.Abort where the answer is no.
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
        for making in from_models.to_make(profile):
            _ask(making)
    return profile


def _save(profile: Profile, path: Path) -> None:
    from quantchat.profile.toml_out import to_toml

    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(to_toml(profile))
    except FileExistsError:
        raise UserError(
            "is there already", where=one_line(str(path)), hint="name a new file"
        ) from None
    except OSError as error:
        raise UserError(
            f"cannot be written: {error.strerror or error}", where=one_line(str(path))
        ) from None


def _ask(making: Making) -> None:
    """Say what it costs to make a checkpoint here, and go on only after a yes."""
    from quantchat import paths

    cache = paths.cache_dir()
    place = next((f for f in (cache, *cache.parents) if f.is_dir()), Path("/"))
    free = shutil.disk_usage(place).free
    took = "how long it takes is not known: none was made on this machine yet"
    if making.seconds is not None:
        took = f"about {_duration(making.seconds)}, going by the last one made on this machine"
    click.echo(
        f"{one_line(making.label)} of {one_line(making.model)} has to be made here first:\n"
        f"  read    {_gb(making.reads)} of weights, downloaded where they are not here yet\n"
        f"  write   {_gb(making.writes)} to {one_line(str(cache))}, where {_gb(free)} are free\n"
        f"  time    {took}\n"
        "A finished checkpoint is taken instead with --gptq MODEL; --with nf4,bf16 needs none.",
        err=True,
    )
    if not sys.stdin.isatty():
        raise UserError(
            "a checkpoint has to be made first, and nobody can be asked",
            hint="--yes makes it without asking",
        )
    click.confirm("Make it?", default=True, abort=True, err=True)


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
