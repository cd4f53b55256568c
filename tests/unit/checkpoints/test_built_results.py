"""Job results in `made.json`, written by the current version and by older ones."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from quantchat.checkpoints.built_results import (
    as_recorded,
    calibration_used,
    cut_length,
    layers_resumed,
    merged_adapter,
    module_losses,
    tokens_written,
)
from quantchat.checkpoints.cache import BuiltCheckpoint
from quantchat.wire.jobs import CalibrationUsed, CollectSamplesResult, MergedAdapter, ModuleLoss

USED = CalibrationUsed(32, 5000, "ab" * 32, 1250, {"think": True})


def made(**result: Any) -> BuiltCheckpoint:
    return BuiltCheckpoint(1, {}, result, {}, {}, 1.0, "")


def test_what_is_recorded_is_read_back() -> None:
    losses = [ModuleLoss(0, "mlp.up_proj", 0.5), ModuleLoss(1, "mlp.up_proj", None)]
    adapter = MergedAdapter("org/lora", "LoRA r8 on q_proj", "cd" * 32)
    built = made(
        losses=[asdict(one) for one in losses],
        calibration=as_recorded(USED),
        adapter=asdict(adapter),
        resumed=3,
    )
    assert calibration_used(built) == USED
    assert module_losses(built) == losses
    assert merged_adapter(built) == adapter
    assert layers_resumed(built) == 3
    collected = made(**asdict(CollectSamplesResult(32, 900, 48, 160)))
    assert (tokens_written(collected), cut_length(collected)) == (900, 160)


def test_an_older_version_recorded_less() -> None:
    old: dict[str, Any] = {"samples": 32, "tokens": 5000, "sha256": "ab" * 32}
    assert calibration_used(made(calibration=old)) == CalibrationUsed(**old, widest=0)
    assert as_recorded(CalibrationUsed(**old)) == {**old, "widest": 0}


@pytest.mark.parametrize("spoilt", [None, 7, "text", [], [7], {}, {"samples": "many"}])
def test_what_does_not_fit_counts_as_not_recorded(spoilt: Any) -> None:
    built = made(
        losses=spoilt, calibration=spoilt, adapter=spoilt, resumed="3", tokens=True, length=spoilt
    )
    assert calibration_used(built) is None
    assert merged_adapter(built) is None
    assert module_losses(built) == []
    assert layers_resumed(built) == tokens_written(built) == 0
    assert calibration_used(None) is None
    assert module_losses(None) == []
