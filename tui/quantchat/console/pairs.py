"""`--variants all`: run a command that compares two variants for several pairs.

Each pair consists of the first variant of the profile and one of the others.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from quantchat.errors import UserError
from quantchat.text import one_line

ALL = "all"


def for_each_pair(ctx: click.Context, goes_on: Callable[[int], bool] = lambda done: True) -> int:
    """Invoke the command of `ctx` once for each pair; return the highest exit status.

    Stops after a pair that a signal interrupted, or if `goes_on(number of pairs so far)` is false;
    then prints which pairs are left out. Raises UserError with `--json` or `-o FILE.json`, which
    can contain only the result of one pair.
    """
    from quantchat.console import opening
    from quantchat.host import signals
    from quantchat.snapshot.compared_sides import column_letter

    folder: Path | None = ctx.params.get("folder")
    if ctx.params.get("as_json"):
        raise _of_one_pair("--json")
    if folder is not None and folder.suffix == ".json":
        raise _of_one_pair(f"-o {one_line(str(folder))}")
    profile = opening.profile_of((ctx.params["profile"],))
    first, *others = (one_line(variant.label) for variant in profile.variants)
    worst = 0
    for done, other in enumerate(others):
        if signals.asked_to_stop() or not goes_on(done):
            left = ", ".join(others[done:])
            click.echo(f"quantchat: left out: {first} with {left}", err=True)
            break
        click.echo(f"quantchat: {first} and {other}", err=True)
        pair = f"{column_letter(0)},{column_letter(done + 1)}"
        worst = max(worst, ctx.invoke(ctx.command, **{**ctx.params, "pair": pair}) or 0)
    return worst


def _of_one_pair(option: str) -> UserError:
    return UserError(
        "holds the result of one pair, not of --variants all",
        where=option,
        hint="name a folder, or two variants",
    )
