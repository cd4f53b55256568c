"""Which two variants of a profile a command takes."""

from __future__ import annotations

import pytest

from quantchat.cli import main
from quantchat.console.opening import with_pair
from quantchat.errors import UserError
from quantchat.profile.model import Profile

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
