"""`quantchat doctor`: what is here, what of it will not work, and the cure."""

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
    help="Try the libraries of this interpreter, as a variant may name one.",
)
@click.option("--env", metavar="NAME", help="The same of an environment of `quantchat env`.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, and nothing else.")
def doctor(python: str | None, env: str | None, as_json: bool) -> int:
    """Look at the machine, the libraries and the terminal; name each problem with its cure.

    The kernels of bitsandbytes and GPTQModel are tried in a worker process. The exit status is 1
    where something keeps quantchat from its main job.
    """
    from quantchat.errors import UserError
    from quantchat.features.doctor.diagnosis import problems, usable
    from quantchat.features.doctor.inspection import examine
    from quantchat.host.worker_process import interpreter
    from quantchat.text import one_line

    if python and env:
        raise UserError("--python and --env both name an interpreter", hint="leave one out")

    def tell(step: str) -> None:
        if sys.stderr.isatty():
            click.echo(one_line(f"{step} …"), err=True)

    found = asyncio.run(examine(interpreter(python, env), tell=tell))
    if as_json:
        body = found.as_json()
        body["problems"] = [dataclasses.asdict(problem) for problem in problems(found)]
        click.echo(json.dumps({**body, "usable": usable(found)}, indent=2))
    else:
        from quantchat.console.console import show
        from quantchat.features.doctor.tables import blocks

        show(blocks(found))
    return 0 if usable(found) else _NOT_USABLE
