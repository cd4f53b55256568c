"""`quantchat score` refuses bad arguments in one line, before any model is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantchat.cli import main

Capture = pytest.CaptureFixture[str]

pytestmark = pytest.mark.usefixtures("own_folders")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--text", "a.txt", "--dataset", "own"], "both name a text"),
        (["--full", "--tokens", "9"], "both set the length"),
        (["--window", "64", "--stride", "65"], "text would be skipped"),
        (["--window", "7"], "not in the range 8<=x"),
        (["--tokens", "0"], "not in the range x>=1"),
        (["--floor", "sea"], "is not one of"),
        (["--dataset", "ours"], "ours: no such dataset (one of own, wikitext-2)"),
        (["--text", "/nowhere/a.txt"], "/nowhere/a.txt: no such file"),
        (["--text", "/"], "/: is a folder"),
        (["--reference", "bf61"], 'bf61: no variant has this label (did you mean "bf16"?)'),
    ],
)
def test_bad_input_is_one_line(options: list[str], said: str, capsys: Capture) -> None:
    assert main(["score", "demo", *options]) == 2
    shown = capsys.readouterr()
    assert not shown.out
    assert shown.err.count("\n") == 1
    assert said in shown.err


def test_a_profile_that_is_none(capsys: Capture) -> None:
    assert main(["score", "demmo"]) == 2
    assert 'did you mean "demo"?' in capsys.readouterr().err


def test_where_no_model_can_be_loaded_it_says_why(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "two.toml"
    file.write_text(
        'name = "Two"\n'
        + "".join(
            f'[[variants]]\nlabel = "{label}"\nengine = "transformers"\nmodel = "./gone"\n'
            for label in "AB"
        )
    )
    assert main(["score", str(file)]) == 1
    shown = capsys.readouterr()
    assert not shown.out
    assert "quantchat: A: " in shown.err
    assert "no such folder" in shown.err
