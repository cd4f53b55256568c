"""The project's rules as tests: lint, format, types, layers, file sizes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from quantchat.profile import toml_text

ROOT = Path(__file__).parents[2]
FOLDERS = [f for f in ("tui", "tests", "benchmarks", "docs") if (ROOT / f).is_dir()]
MOST_LINES = 500
"""A file of 400 lines is worth a look; one of more than 500 has two subjects."""
TABLES = {"tests/fakes/tiny_architectures.py"}
"""Files that are one long table."""


def run(*command: str) -> None:
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def tool(name: str) -> str:
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    assert found, f"{name} is not installed: pip install -e '.[dev]'"
    return found


def test_lint() -> None:
    run(tool("ruff"), "check", *FOLDERS)


def test_format() -> None:
    run(tool("ruff"), "format", "--check", *FOLDERS)


def test_types() -> None:
    run(sys.executable, "-m", "mypy")


def test_layers() -> None:
    run(tool("lint-imports"))


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_file_has_grown_into_a_god(folder: str) -> None:
    long = {
        name: lines
        for file in sorted((ROOT / folder).rglob("*.py"))
        if (name := str(file.relative_to(ROOT))) not in TABLES
        if (lines := len(file.read_text(encoding="utf-8").splitlines())) > MOST_LINES
    }
    assert not long


def test_each_place_names_the_same_versions_of_python() -> None:
    declared = toml_text.parse((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project, tools = declared["project"], declared["tool"]
    fit = list(SpecifierSet(project["requires-python"]).filter(f"3.{n}" for n in range(100)))
    named = [line for line in project["classifiers"] if "Python :: 3" in line]
    assert named == [f"Programming Language :: Python :: {version}" for version in fit]
    assert tools["ruff"]["target-version"] == f"py{fit[0].replace('.', '')}"
    assert tools["mypy"]["python_version"] == fit[0]
    assert f"Python {fit[0]} to {fit[-1]} on Linux" in (ROOT / "README.md").read_text("utf-8")
