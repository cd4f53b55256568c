"""`quantchat load` refuses bad arguments in one line, before any model is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fakes.openai_server import serving
from fakes.served_pair import served_pair
from quantchat.cli import main

Capture = pytest.CaptureFixture[str]

pytestmark = pytest.mark.usefixtures("own_folders")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--concurrency", "1,x"], "is not a list of counts"),
        (["--concurrency", "0"], "is not a list of counts"),
        (["--rate", "0"], "is not a list of requests per second"),
        (["--rate", "nan"], "is not a list of requests per second"),
        (["--slo", "ttft < 5"], "'ttft < 5' is not a limit"),
        (["--rounds", "0"], "not in the range"),
        (["--fail-if", "a.kld < 1"], "is a figure of `quantchat score`"),
        (["--rate", "2"], "cannot arrive at a rate"),
    ],
)
def test_bad_input_is_one_line(options: list[str], said: str, capsys: Capture) -> None:
    assert main(["load", "demo", *options]) == 2
    shown = capsys.readouterr()
    assert not shown.out
    assert shown.err.count("\n") == 1
    assert said in shown.err


def test_a_server_is_tested_printed_and_gated(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "pair.toml"
    with serving() as server:
        file.write_text(served_pair(server.url))
        asked = ["load", str(file), "--concurrency", "1,2", "--requests", "4", "--rounds", "2"]
        asked += ["--save", str(tmp_path)]
        assert main([*asked, "--fail-unless", "a.output_tps < 1e9"]) == 0
        shown = capsys.readouterr()
        assert main([*asked, "--json", "--slo", "ttft_ms < 60000"]) == 0
    assert "output tok/s" in shown.out
    assert "passed" in shown.out
    body = json.loads(capsys.readouterr().out)
    assert [model["label"] for model in body["load_test"]["models"]] == ["one", "other"]
    (saved, _) = sorted(tmp_path.glob("*.json"))
    assert main(["snapshots", "show", str(saved)]) == 0
    assert "at once" in capsys.readouterr().out
