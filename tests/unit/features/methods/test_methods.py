"""`quantchat methods`: each method of the registry, with lines of a profile that are valid."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quantchat.cli import main
from quantchat.engines.registry import methods
from quantchat.features.methods import offer
from quantchat.profile.load import loads


def test_each_method_has_lines_that_are_a_profile() -> None:
    found = list(offer.offered_methods("org/name"))
    assert [one.name for one in found] == list(methods())
    other = '[[variants]]\nlabel = "other"\nengine = "transformers"\nmodel = "org/name"'
    for one in found:
        profile = loads(f'name = "x"\n{other}\n{one.toml}', where="x", folder=Path("/"))
        assert profile.variants[1].engine == one.engine
        assert one.needs and bool(profile.variants[1].calibration_table) == one.calibrated


def test_a_missing_package_is_named_with_its_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["methods", "hqq-4bit", "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert told["missing"] == "hqq is missing: python -m pip install 'quantchat[hqq]'"
    assert not told["made_here"] and 'engine = "hqq"' in told["toml"]


def test_the_table_and_a_method_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods"]) == 0
    assert "torchao-int4" in capsys.readouterr().out
    assert main(["methods", "hqq-5bit"]) != 0
    assert 'did you mean "hqq-' in capsys.readouterr().err
