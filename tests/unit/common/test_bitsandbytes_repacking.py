"""Which layers bitsandbytes repacks."""

from __future__ import annotations

import pytest

from quantchat.common.bitsandbytes_repacking import is_repackable


@pytest.mark.parametrize(
    ("outputs", "inputs", "expected"),
    [(32, 64, True), (576, 1536, True), (48, 64, False), (64, 96, False)],
)
def test_both_widths_must_fit(outputs: int, inputs: int, expected: bool) -> None:
    assert is_repackable(outputs, inputs) is expected
