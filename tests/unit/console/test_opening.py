"""Which two variants of a profile a command takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantchat.cli import main
from quantchat.console.opening import with_pair
from quantchat.errors import UserError
from quantchat.profile.model import Profile
from quantchat.profile.toml_out import to_toml
from quantchat.session.comparison import Comparison

Capture = pytest.CaptureFixture[str]

LABELS = ("GPTQ", "NF4, double quant", "bf16", "A, B")


def profile() -> Profile:
    variants = [{"label": x, "engine": "transformers", "model": "org/x"} for x in LABELS]
    return Profile.model_validate({"name": "Four", "variants": variants})


@pytest.mark.parametrize(
    ("pair", "first", "second"),
    [
        ("", "GPTQ", "NF4, double quant"),
        ("A,C", "GPTQ", "bf16"),
        ("c, a", "bf16", "GPTQ"),
        ("bf16,nf4, double quant", "bf16", "NF4, double quant"),
        ("NF4, double quant,GPTQ", "NF4, double quant", "GPTQ"),
        ("A, B,bf16", "A, B", "bf16"),
        ("GPTQ,d", "GPTQ", "A, B"),
    ],
)
def test_the_pair_comes_first(pair: str, first: str, second: str, capsys: Capture) -> None:
    found = with_pair(profile(), pair)
    assert [one.label for one in found.variants[:2]] == [first, second]
    assert sorted(one.label for one in found.variants) == sorted(LABELS)
    left_out = [label for label in LABELS if label not in (first, second)]
    assert f"left out: {', '.join(left_out)} (choose with" in capsys.readouterr().err


@pytest.mark.parametrize("pair", ["A", "A,A", "A,Z", "gptq,GPTQ", ",", "A,B,C,"])
def test_what_names_no_two_variants(pair: str) -> None:
    with pytest.raises(UserError, match="does not name two variants") as refused:
        with_pair(profile(), pair)
    assert "B = NF4, double quant" in refused.value.hint


@pytest.mark.usefixtures("own_folders")
@pytest.mark.parametrize("command", ["run", "vote", "agreement"])
def test_each_command_that_takes_a_pair_refuses_a_wrong_one(command: str, capsys: Capture) -> None:
    assert main([command, "demo", "--variants", "A,Q"]) == 2
    assert "--variants A,Q: does not name two variants" in capsys.readouterr().err


@pytest.mark.usefixtures("own_folders")
def test_all_is_the_first_variant_with_each_other_one(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[list[str]] = []

    def measure(comparison: Comparison, plan: object, folder: Path, **more: object) -> int:
        assert folder == tmp_path and more["gates"]
        measured.append([side.label for side in comparison.sides])
        return 1 if len(measured) == 1 else 0

    monkeypatch.setattr("quantchat.features.measure.cli.measure_and_print", measure)
    (tmp_path / "four.toml").write_text(to_toml(profile()))
    run = ["run", str(tmp_path / "four.toml"), "--variants", "all", "--prompt", "One?"]
    assert main([*run, "--save", str(tmp_path)]) == 1, "the worst status"
    assert measured == [["GPTQ", other] for other in LABELS[1:]]
    assert "quantchat: GPTQ and bf16" in capsys.readouterr().err
    for one_pair in ("--json", "-o"):
        assert main([*run, one_pair, *([] if one_pair == "--json" else ["x.json"])]) == 2
        assert "result of one pair" in capsys.readouterr().err
    monkeypatch.setattr("quantchat.host.signals._asked_to_stop", True)
    measured.clear()
    assert main(run) == 0 and not measured
    assert "left out: GPTQ with NF4, double quant, bf16, A, B" in capsys.readouterr().err
