"""Each extra of the package works in an environment with only its own dependencies."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from fakes.linked_environment import NotInstalled, own_environment
from fakes.openai_server import FakeServer
from fakes.tiny_adapter import adapter_in
from fakes.tiny_folder import tiny_folder

pytestmark = pytest.mark.usefixtures("own_folders")

RUN = ["--prompt", "Hi", "--rounds", "1", "--warmup", "0", "--max-new-tokens", "2"]


def environment(folder: Path, extra: str = "") -> Path:
    try:
        return own_environment(folder / "env", extra)
    except NotInstalled as missing:
        pytest.skip(f"the extra cannot be tried here: {missing}")


def program(python: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run quantchat there, without what a development environment adds to the module path."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(python), "-m", "quantchat", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=variables,
        text=True,
        check=False,
    )


def written(folder: Path, *variants: dict[str, str]) -> str:
    """The path of a profile of these variants."""
    lines = ['name = "extra"']
    for number, variant in enumerate(variants):
        lines += ["[[variants]]", f'label = "{number}"']
        lines += [f"{key} = {json.dumps(value)}" for key, value in variant.items()]
    (folder / "p.toml").write_text("\n".join(lines))
    return str(folder / "p.toml")


def test_nothing_of_the_extras_is_needed(tmp_path: Path) -> None:
    python = environment(tmp_path)
    there = 'print([bool(importlib.util.find_spec(n)) for n in ("torch", "peft", "openai")])'
    told = subprocess.run(
        [str(python), "-c", f"import importlib.util; {there}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == "[True, False, False]"
    assert program(python, "profiles").returncode == 0
    done = program(python, "plan", "demo")
    assert "total" in done.stdout, done.stderr


def test_an_adapter_is_put_on_a_plain_model(tmp_path: Path) -> None:
    """It failed where the extra brought peft alone: that asks for optimum beside GPTQModel."""
    python = environment(tmp_path, "adapters")
    model = tiny_folder(tmp_path / "model")
    plain = {"engine": "transformers", "model": str(model), "device": "cpu"}
    profile = written(tmp_path, plain | {"adapter": str(adapter_in(tmp_path / "lora"))}, plain)
    done = program(python, "run", profile, *RUN, "--save", str(tmp_path / "saved"))
    assert done.returncode == 0, done.stderr
    (saved,) = (tmp_path / "saved").glob("*.json")
    snapshot = json.loads(saved.read_text())
    assert [bool(one["model_info"]["adapter"]) for one in snapshot["variants"]] == [True, False]


def test_servers_are_measured(tmp_path: Path, server: FakeServer) -> None:
    python = environment(tmp_path, "servers")
    one = {"engine": "openai", "model": "tiny", "base_url": server.url}
    done = program(python, "run", written(tmp_path, one, one), *RUN)
    assert done.returncode == 0, done.stderr


def test_tasks_are_done(tmp_path: Path) -> None:
    python = environment(tmp_path, "eval")
    plain = {"engine": "transformers", "model": str(tiny_folder(tmp_path / "m")), "device": "cpu"}
    words = ["--tasks", "own", "--limit", "2", "--save", str(tmp_path / "saved")]
    done = program(python, "eval", written(tmp_path, plain, plain), *words)
    assert done.returncode == 0, done.stderr
    (saved,) = (tmp_path / "saved").glob("*.json")
    assert json.loads(saved.read_text())["evaluation"]["models"]
