"""A click group that imports a command only when it is called, so that `--help` is fast."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple, cast

import click


class Lazy(NamedTuple):
    """A command that is not imported yet."""

    target: str
    """Where the command is: `module:attribute`."""
    help: str
    """Its line in the list of commands."""


class LazyGroup(click.Group):
    """A group of commands, some of which are imported only when they are called.

    `lazy` has those commands by name. Further commands can be added as to any click group.
    """

    def __init__(self, *args: Any, lazy: dict[str, Lazy], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands in the order in which the help lists them."""
        return [*self.lazy, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command `cmd_name`; None if there is no such command."""
        if cmd_name not in self.lazy:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = self.lazy[cmd_name].target.partition(":")
        return cast("click.Command", getattr(importlib.import_module(module), attribute))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, lazy.help) for name, lazy in self.lazy.items()])
