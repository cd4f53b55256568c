"""`quantchat methods`: the quantization methods, and whether they run here."""

from __future__ import annotations

import json
from dataclasses import asdict

import click


@click.command()
@click.argument("name", required=False)
@click.option("--model", default="org/name", help="Model to name in the lines of a profile.")
@click.option("--json", "as_json", is_flag=True, help="Print only JSON.")
def methods(name: str | None, model: str, as_json: bool) -> int:
    """List the quantization methods, and whether this machine has what they need.

    With NAME, print the lines with which a profile uses this method. This command does not check
    whether the GPU has a kernel for a method; `quantchat doctor` tries the kernels.
    """
    from quantchat.errors import UserError
    from quantchat.features.methods.offer import offered_methods
    from quantchat.profile.nearest import did_you_mean

    found = {one.name: one for one in offered_methods(model)}
    if name is not None and name not in found:
        known = ", ".join(found)
        hint = did_you_mean(name, found) or f"one of: {known}"
        raise UserError("no method of this name", where=name, hint=hint)
    chosen = [found[name]] if name is not None else list(found.values())
    if as_json:
        click.echo(json.dumps([asdict(one) for one in chosen], indent=2))
    elif name is not None:
        click.echo(found[name].toml)
        if found[name].missing:
            click.echo(found[name].missing, err=True)
    else:
        from quantchat.console.console import show
        from quantchat.features.methods.tables import blocks

        show(blocks(chosen))
    return 0
