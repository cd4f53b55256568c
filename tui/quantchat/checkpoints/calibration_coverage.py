"""Whether a checkpoint was calibrated on enough: more tokens than its widest module has inputs."""

from __future__ import annotations

from typing import Any


def share(calibration: dict[str, Any]) -> float | None:
    """Tokens for each input of the widest module; None where that is not known.

    `calibration` is what the job that quantized has to say of it.
    """
    widest = calibration.get("widest", 0)
    return calibration["tokens"] / widest if widest else None


def shortage(calibration: dict[str, Any]) -> str:
    """What to say where it was too little, on one line; else nothing."""
    found = share(calibration)
    if found is None or found >= 1:
        return ""
    return (
        f"calibrated on {found:.2g} tokens for each of the {calibration['widest']} inputs of its"
        " widest module: GPTQ wants more than one; give more samples, or more sample_tokens"
    )
