"""The documentation site builds without a warning, and its reference is complete."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from quantchat.app.preferences import json_schema as preferences_schema
from quantchat.cli import root
from quantchat.profile.schema import json_schema as profile_schema
from quantchat.profile.toml_text import parse
from quantchat.snapshot import figures
from quantchat.snapshot.schema import json_schema as snapshot_schema

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def text_of(site: Path, page: str) -> str:
    source = (site / page / "index.html").read_text(encoding="utf-8")
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", source)).split())


def commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        ctx = click.Context(command)
        for name in command.list_commands(ctx):
            one = command.get_command(ctx, name)
            assert one is not None
            yield from commands(one, f"{path} {name}")


def test_each_command_and_option_is_in_the_reference(site: Path) -> None:
    page = text_of(site, "reference/commands")
    for path, command in commands(root, "quantchat"):
        section = page.partition(f"Usage: {path} ")[2].partition("Usage:")[0]
        options = [param for param in command.params if isinstance(param, click.Option)]
        assert section
        assert not [option for o in options for option in o.opts if option not in section]


@pytest.mark.parametrize(
    ("page", "schema"),
    [("profile-keys", profile_schema()), ("snapshot-fields", snapshot_schema())],
    ids=["profile", "snapshot"],
)
def test_each_key_is_in_the_reference(site: Path, page: str, schema: dict[str, Any]) -> None:
    source = (site / "reference" / page / "index.html").read_text(encoding="utf-8")
    sections = dict(re.findall(r'<h2 id="([^"]+)">(.*?)(?=<h2|</article>)', source, re.DOTALL))
    tables = {**schema["$defs"], schema["title"].removeprefix("quantchat "): schema}
    for name, described in tables.items():
        for key in described.get("properties", ()):
            assert f"<code>{key}</code>" in sections[name.lower()]


def objects(schema: Any, name: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and the properties of each object in `schema`, also of one without a name."""
    if isinstance(schema, dict):
        title = schema.get("title")
        name = title if isinstance(title, str) else name  # a property may be called "title"
        if isinstance(schema.get("properties"), dict):
            yield name, schema["properties"]
        for value in schema.values():
            yield from objects(value, name)
    elif isinstance(schema, list):
        for value in schema:
            yield from objects(value, name)


@pytest.mark.parametrize(
    "schema",
    [profile_schema(), snapshot_schema(), preferences_schema()],
    ids=["profile", "snapshot", "preferences"],
)
def test_each_key_is_described(schema: dict[str, Any]) -> None:
    found = list(objects(schema))
    assert found
    assert not [
        f"{name}.{key}"
        for name, properties in found
        for key, value in properties.items()
        if not value.get("description", "").strip()
    ]


def test_each_object_of_a_snapshot_has_a_table_of_its_own() -> None:
    """An object inside a property would be shown as a mere "table" on the page."""
    schema = snapshot_schema()
    named = schema["$defs"]
    assert isinstance(named, dict)
    assert {name for name, _ in objects(schema)} == {"quantchat snapshot", *named} - {"JsonValue"}


def test_each_figure_is_on_the_page_about_gates() -> None:
    page = (ROOT / "docs" / "how-to" / "ci-gate.md").read_text(encoding="utf-8")
    assert not [name for name in figures.by_name() if f"`{name}`" not in page]


def test_nothing_is_fetched_from_another_host_when_a_page_is_read(site: Path) -> None:
    loads = re.compile(r'<(?:script|img|link|iframe)[^>]*(?:src|href)="(?:https?:)?//')
    assert not [p for p in site.rglob("*.html") if loads.search(p.read_text(encoding="utf-8"))]


def test_the_table_of_dependencies_is_that_of_the_project() -> None:
    project = parse((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    declared = {Requirement(line).name: "" for line in project["dependencies"]}
    for extra in extras.keys() - {"dev"}:
        declared |= {Requirement(line).name: f" (extra `{extra}`)" for line in extras[extra]}
    page = (ROOT / "docs" / "reference" / "dependencies.md").read_text(encoding="utf-8")
    table = page.partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+?)( \(extra `[\w-]+`\))? \|", table, re.MULTILINE)
    listed = {
        canonicalize_name(name): extra
        for names, extra in rows
        if names not in ("package", "---")
        for name in names.split(", ")
    }
    assert listed == {canonicalize_name(name): extra for name, extra in declared.items()}
