"""What a checkpoint came to, as it is shown."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from quantchat.features.quantize.outcome import Outcome, Perplexity, Side
from quantchat.features.quantize.tables import render
from quantchat.wire.jobs import CalibrationUsed, ModuleLoss

CALIBRATION = CalibrationUsed(samples=32, tokens=5000, sha256="ab" * 32)


def an_outcome(losses: list[ModuleLoss], note: str = "") -> Outcome:
    side = Side(1000, Perplexity(10, 1, 2, 50))
    return Outcome(Path("/x"), side, Side(None, None), 500, None, 1.0, losses, None, note)


def test_bits_per_weight() -> None:
    told = an_outcome([])
    assert told.bits_per_weight(told.before) == 16
    assert told.bits_per_weight(told.after) is None


def test_what_was_quantized_before_is_not_in_the_time() -> None:
    def said(resumed: int) -> str:
        told = dataclasses.replace(an_outcome([]), resumed=resumed)
        console = Console(file=io.StringIO(), width=120)
        with console.capture() as caught:
            console.print(render(told))
        return caught.get()

    assert "13 of the layers were kept from a try that was stopped" in said(13)
    assert "were kept" not in said(0)


@pytest.mark.parametrize(
    ("widest", "told"),
    [
        (0, None),  # not recorded
        (1250, "4.0 tokens for each of the 1250 inputs of the widest module\n"),
        (5000, "1.0 tokens for each of the 5000 inputs of the widest module\n"),
        (14336, None),  # of which the note of the checkpoint tells
    ],
)
def test_how_much_calibration_there_was(widest: int, told: str | None) -> None:
    used = dataclasses.replace(CALIBRATION, widest=widest)
    made = dataclasses.replace(an_outcome([]), calibration=used)
    console = Console(file=io.StringIO(), width=160)
    with console.capture() as caught:
        console.print(render(made))
    said = "".join(f"{line.rstrip()} \n" for line in caught.get().splitlines())
    assert (told or "").replace("\n", " \n") in said
    assert ("for each of" in said) is (told is not None)


rows = st.builds(
    ModuleLoss,
    layer=st.integers(0, 99),
    module=st.text(),
    loss=st.none() | st.floats(allow_nan=False),
)


@given(st.lists(rows), st.text())
def test_any_outcome_can_be_shown(losses: list[ModuleLoss], note: str) -> None:
    assert render(an_outcome(losses, note)).renderables
