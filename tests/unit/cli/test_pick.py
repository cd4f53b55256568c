"""`quantchat pick`, as it is called from a shell."""

from __future__ import annotations

from typing import Any

import click
import pytest

from quantchat.cli import main
from quantchat.cli.pick import status_of
from quantchat.console.units import Share, Size, Tokens
from quantchat.features.pick.decide import Candidate, decide
from quantchat.snapshot.pick import LimitsRecord

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Size(), "24GB", 24 * 10**9),
        (Size(), "1.5 GiB", 3 * 2**29),
        (Size(), "800mib", 800 * 2**20),
        (Size(), "1000000", 10**6),
        (Tokens(), "16k", 16384),
        (Tokens(), "4096", 4096),
        (Share(), "1%", 0.01),
        (Share(), "0.05", 0.05),
    ],
)
def test_units(kind: Any, text: str, value: float) -> None:
    assert kind.convert(text, None, None) == pytest.approx(value)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Size(), "24 apples"),
        (Size(), "0GB"),
        (Size(), "-1GB"),
        (Size(), "99999999TB"),
        (Tokens(), "16q"),
        (Tokens(), "0"),
        (Tokens(), "1e9"),
        (Share(), "100%"),
        (Share(), "5"),
        (Share(), "1kB"),
    ],
)
def test_other_units_are_refused(kind: Any, text: str) -> None:
    with pytest.raises(click.BadParameter):
        kind.convert(text, None, None)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--max-memory", "much"], "give for example 24GB"),
        (["--max-drop", "2"], "give for example 1% or 0.01"),
        (["--methods", "nf5"], '"nf5" is not a quantization method'),
        (["--reference", "nothing"], "no variant has this label"),
        (["--report", "report.pdf"], "a report cannot be written as .pdf"),
        (["--prompts", "/nowhere"], "cannot read the prompts"),
    ],
)
@pytest.mark.usefixtures("own_folders")
def test_bad_input_is_one_line_before_anything_is_loaded(
    options: list[str], said: str, capsys: Capture
) -> None:
    assert main(["pick", "demo", "--yes", *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert "Traceback" not in captured.err


def test_the_exit_status_is_that_of_the_decision() -> None:
    def status(*candidates: Candidate, **limits: Any) -> int:
        fields: dict[str, Any] = dict.fromkeys(("max_memory", "min_tps", "max_kld", "max_drop"))
        asked = LimitsRecord(**{**fields, "context": 640, "prefer": "fastest", **limits})
        return status_of(decide(candidates, asked, "bf16"))

    speeds = {(task, round_): 40.0 + task for task in (1, 2, 3) for round_ in (1, 2)}
    measured = Candidate("a", speeds=speeds)
    assert status(measured, min_tps=10.0) == 0
    assert status(measured, min_tps=90.0) == 1
    assert status(measured, min_tps=42.0) == 2
    assert status(measured, max_kld=0.1) == 2  # not scored
    assert status(Candidate("a", dropped="failed: no room")) == 1
    assert status(Candidate("a")) == 2  # not measured yet
