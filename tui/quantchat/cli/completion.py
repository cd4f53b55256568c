"""`quantchat completion`: completion of commands, options and names in a shell."""

from __future__ import annotations

import os
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from quantchat.console.options import COMPLETING
from quantchat.errors import UserError
from quantchat.files import write_whole
from quantchat.text import one_line

_PLACES = {
    "bash": ("XDG_DATA_HOME", "~/.local/share", "bash-completion/completions/quantchat"),
    "zsh": ("XDG_DATA_HOME", "~/.local/share", "zsh/site-functions/_quantchat"),
    "fish": ("XDG_CONFIG_HOME", "~/.config", "fish/completions/quantchat.fish"),
}
"""Where a shell looks for completions, by the shell's name: the environment variable that contains
the base folder, the default of this folder, and the script's path in it."""

_NEXT = {
    "bash": "bash reads it in new shells if the package bash-completion is installed",
    "zsh": "zsh reads it in new shells if ~/.zshrc has: fpath+=({folder}); autoload -U compinit; "
    "compinit",
    "fish": "fish reads it in new shells",
}


@click.command()
@click.argument("shell", type=click.Choice([*_PLACES]), required=False)
@click.option("--install", is_flag=True, help="Write the script where the shell looks for it.")
@click.pass_context
def completion(ctx: click.Context, shell: str | None, install: bool) -> None:
    """Print the script with which SHELL completes commands, options and profiles.

    The default is the shell in the environment variable SHELL. With --install, the script is
    written where this shell looks for it, and quantchat says what else the shell needs.
    """
    shell = shell or _current()
    script = _script(ctx.find_root().command, shell)
    if not install:
        click.echo(script)
        return
    path = _place(shell)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, script.encode(), private=False)
    except OSError as error:
        raise UserError(
            f"cannot be written: {error.strerror or error}",
            where=one_line(str(path)),
            hint=f"`quantchat completion {shell}` prints the script",
        ) from error
    click.echo(one_line(f"wrote {path}; {_NEXT[shell].format(folder=path.parent)}"))


def _current() -> str:
    """Return the name of the user's shell. Raises UserError if there is no script for it."""
    name = Path(os.environ.get("SHELL", "")).name
    if name not in _PLACES:
        raise UserError(
            f"there is no completion for {one_line(name) or 'an unknown shell'}",
            where="SHELL",
            hint=f"name one of {', '.join(_PLACES)}",
        )
    return name


def _script(command: click.Command, shell: str) -> str:
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - click has the three shells of `_PLACES`
    # Not `kind.source()`, which runs bash to check its version. An old bash ignores the script.
    made = kind(command, {}, "quantchat", COMPLETING)
    return str(made.source_template % made.source_vars()).strip()


def _place(shell: str) -> Path:
    variable, default, file = _PLACES[shell]
    try:
        return Path(os.environ.get(variable) or default).expanduser() / file
    except RuntimeError as error:
        raise UserError("this user has no home directory", where=variable) from error
