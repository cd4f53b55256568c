"""Read the results of jobs from `made.json`, including files of older versions.

`made.json` describes a checkpoint in the cache. It stores each result as the JSON object of its
dataclass in `wire.jobs`. A value that does not fit its dataclass counts as not recorded: a bad
value in `made.json` must not make a checkpoint unusable.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TypeVar

from quantchat.checkpoints.cache import BuiltCheckpoint
from quantchat.wire.codec import ProtocolError, from_json
from quantchat.wire.jobs import CalibrationUsed, MergedAdapter, ModuleLoss

_T = TypeVar("_T")


def calibration_used(built: BuiltCheckpoint | None) -> CalibrationUsed | None:
    """Return the calibration of a checkpoint; None if it was quantized without calibration."""
    return _read(CalibrationUsed, built, "calibration")


def merged_adapter(built: BuiltCheckpoint | None) -> MergedAdapter | None:
    """Return the adapter that was merged into the model; None if there is none."""
    return _read(MergedAdapter, built, "adapter")


def module_losses(built: BuiltCheckpoint | None) -> list[ModuleLoss]:
    """Return the quantization error of each module; empty if the method did not report any."""
    recorded = built.result.get("losses", []) if built else []
    try:
        return [from_json(ModuleLoss, one, saved=True) for one in recorded]
    except (ProtocolError, TypeError):
        return []


def tokens_written(built: BuiltCheckpoint | None) -> int:
    """Return the token count of a calibration set; 0 if not recorded."""
    return _number(built, "tokens") or 0


def cut_length(built: BuiltCheckpoint | None) -> int | None:
    """Return the length limit of calibration samples in tokens; None if not recorded."""
    return _number(built, "length")


def layers_resumed(built: BuiltCheckpoint | None) -> int:
    """Return the number of layers that an earlier, interrupted build quantized."""
    return _number(built, "resumed") or 0


def as_recorded(calibration: CalibrationUsed) -> dict[str, object]:
    """Return `calibration` as JSON for `made.json`, without empty chat template variables."""
    body = asdict(calibration)
    if not calibration.chat_template_kwargs:
        del body["chat_template_kwargs"]
    return body


def _read(cls: type[_T], built: BuiltCheckpoint | None, key: str) -> _T | None:
    recorded = built.result.get(key) if built else None
    try:
        return from_json(cls, recorded, saved=True) if recorded else None
    except ProtocolError:
        return None


def _number(built: BuiltCheckpoint | None, key: str) -> int | None:
    recorded = built.result.get(key) if built else None
    return recorded if type(recorded) is int else None
