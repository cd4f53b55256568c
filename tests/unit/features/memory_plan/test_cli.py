"""`quantchat plan` if no estimate is possible."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fakes.model_folder import LLAMA_2_7B, llama_tensors, write_model
from quantchat.cli import main

NOTHING = "no plan: no variant's memory could be estimated"

PROFILE = """
name = "p"
[[variants]]
label = "first"
engine = "transformers"
model = "./first"
[[variants]]
label = "second"
engine = "transformers"
model = "./second"
"""


def test_a_plan_of_nothing_says_so_and_fails(
    tmp_path: Path, own_folders: None, capsys: pytest.CaptureFixture[str]
) -> None:
    (profile := tmp_path / "p.toml").write_text(PROFILE)
    assert main(["plan", str(profile), "--offline"]) == 1
    told = " ".join(capsys.readouterr().out.split())
    assert NOTHING in told
    assert told.count("no such folder") == 2
    assert main(["plan", str(profile), "--offline", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["fit"] == "not known"


def test_what_is_known_of_one_is_a_plan(
    tmp_path: Path, own_folders: None, capsys: pytest.CaptureFixture[str]
) -> None:
    (profile := tmp_path / "p.toml").write_text(PROFILE)
    write_model(tmp_path / "first", LLAMA_2_7B, llama_tensors(LLAMA_2_7B))
    assert main(["plan", str(profile), "--offline"]) == 0
    assert NOTHING not in " ".join(capsys.readouterr().out.split())
