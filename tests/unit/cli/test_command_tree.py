"""Rules that hold for every command, checked on the whole tree of commands."""

from __future__ import annotations

import json
from collections.abc import Iterator

import click
import pytest

from fakes.saved_snapshots import snapshot
from quantchat.cli import main, root
from quantchat.snapshot import store

WITHOUT_JSON = {
    "open": "opens the screen",
    "report": "writes files, and prints only their name",
    "profiles new": "writes a file, and prints only its name",
    "env create": "makes something, and prints only its name",
    "env remove": "removes what it is told, and prints no more than that",
    "cache remove": "removes what it is told, and prints no more than that",
    "snapshots keep": "renames a file, and prints only its name",
    "snapshots discard": "removes what it is told, and prints no more than that",
    "snapshots remove": "removes what it is told, and prints no more than that",
    "completion": "prints a script for a shell",
    "schema": "only has commands",
    "schema profile": "prints JSON only",
    "schema preferences": "prints JSON only",
    "schema snapshot": "prints JSON only",
}
"""Commands without --json, with the reason."""


def commands(
    group: click.Group = root, parents: tuple[str, ...] = ()
) -> Iterator[tuple[str, click.Command]]:
    """Yield each command below `group` with its name, groups included."""
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None, name
        yield " ".join((*parents, name)), command
        if isinstance(command, click.Group):
            yield from commands(command, (*parents, name))


TREE = dict(commands())


def options(command: click.Command) -> set[str]:
    return {option for param in command.params for option in param.opts}


@pytest.mark.parametrize("name", TREE)
def test_each_command_that_prints_a_result_prints_it_as_json(name: str) -> None:
    assert ("--json" in options(TREE[name])) != (name in WITHOUT_JSON)


def test_the_exceptions_exist() -> None:
    assert set(WITHOUT_JSON) - set(TREE) <= {"open"}


@pytest.mark.parametrize("name", TREE)
def test_each_command_and_option_is_explained(name: str) -> None:
    command = TREE[name]
    assert command.help
    for param in command.params:
        assert not isinstance(param, click.Option) or param.hidden or param.help, param.name


@pytest.mark.usefixtures("own_folders")
@pytest.mark.parametrize(
    "words",
    [
        "profiles",
        "profiles list",
        "profiles show demo",
        "profiles check demo",
        "cache",
        "cache list",
        "cache verify",
        "env",
        "env list",
        "snapshots",
        "snapshots list",
        "snapshots latest",
        "snapshots show latest",
        "plan demo --offline",
    ],
)
def test_json_is_all_that_is_printed(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    store.save(snapshot())
    assert main([*words.split(), "--json"]) in (0, 1)
    assert json.loads(capsys.readouterr().out) is not None


def test_json_of_a_group_belongs_to_its_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profiles", "--json", "check", "demo"]) == 2
    assert "`quantchat profiles list --json`" in capsys.readouterr().err
