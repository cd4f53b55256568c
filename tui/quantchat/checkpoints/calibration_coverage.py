"""Check that a checkpoint's calibration had a token for each input of its widest module."""

from __future__ import annotations

from quantchat.wire.jobs import CalibrationUsed


def tokens_per_input(calibration: CalibrationUsed) -> float | None:
    """Return the calibration tokens for each input of the widest module; None if unknown."""
    return calibration.tokens / calibration.widest if calibration.widest else None


def shortage(calibration: CalibrationUsed) -> str:
    """Return a one-line warning of too few calibration tokens; empty if there are enough."""
    found = tokens_per_input(calibration)
    if found is None or found >= 1:
        return ""
    return (
        f"calibrated on {found:.2g} tokens for each of the {calibration.widest} inputs of its"
        " widest module: at least one is needed, and several are better; set more samples, or more"
        " sample_tokens"
    )
