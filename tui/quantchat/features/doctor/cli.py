"""`quantchat doctor`: find what does not work on this machine, and how to fix it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys

import click

_NOT_USABLE = 1


@click.command()
@click.option(
    "--python",
    metavar="PYTHON",
    help="Check the libraries of the interpreter PYTHON.",
)
@click.option("--env", metavar="NAME", help="Check an environment made by `quantchat env`.")
@click.option("--json", "as_json", is_flag=True, help="Print only JSON.")
def doctor(python: str | None, env: str | None, as_json: bool) -> int:
    """Check the machine, the libraries and the terminal; show each problem with its fix.

    Tries the kernels of the quantization libraries in a worker process. The exit status is 1 if a
    problem prevents the comparison of two quantized models on this machine.
    """
    from quantchat.errors import UserError
    from quantchat.features.doctor.diagnosis import problems, usable
    from quantchat.features.doctor.inspection import examine
    from quantchat.host.environments import interpreter
    from quantchat.text import one_line

    if python and env:
        raise UserError("--python and --env both name an interpreter", hint="give only one of them")

    def report(step: str) -> None:
        if sys.stderr.isatty():
            click.echo(one_line(f"{step} …"), err=True)

    found = asyncio.run(examine(interpreter(python, env), report=report))
    if as_json:
        body = found.as_json()
        body["problems"] = [dataclasses.asdict(problem) for problem in problems(found)]
        click.echo(json.dumps({**body, "usable": usable(found)}, indent=2))
    else:
        from quantchat.console.console import show
        from quantchat.features.doctor.tables import blocks

        show(blocks(found))
    return 0 if usable(found) else _NOT_USABLE
