"""The tables that describe a built checkpoint."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.printed_document import printed
from quantchat.features.quantize.outcome import ModelFigures, Outcome, Perplexity
from quantchat.features.quantize.tables import blocks
from quantchat.wire.jobs import CalibrationUsed, ModuleLoss

CALIBRATION = CalibrationUsed(samples=32, tokens=5000, sha256="ab" * 32)


def an_outcome(losses: list[ModuleLoss], note: str = "") -> Outcome:
    side = ModelFigures(1000, Perplexity(10, 1, 2, 50))
    return Outcome(Path("/x"), side, ModelFigures(None, None), 500, None, 1.0, losses, None, note)


def test_bits_per_weight() -> None:
    told = an_outcome([])
    assert told.bits_per_weight(told.before) == 16
    assert told.bits_per_weight(told.after) is None


def test_what_was_quantized_before_is_not_in_the_time() -> None:
    def said(resumed: int) -> str:
        told = dataclasses.replace(an_outcome([]), resumed=resumed)
        return printed(blocks(told), 120)

    assert "13 of the layers were quantized by an earlier run" in said(13)
    assert "by an earlier run" not in said(0)


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
    said = "".join(f"{line.rstrip()} \n" for line in printed(blocks(made), 160).splitlines())
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
    assert printed(blocks(an_outcome(losses, note)))
