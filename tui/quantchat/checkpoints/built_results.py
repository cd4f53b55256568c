"""Read the results of jobs from `made.json`, including files of older versions.

The file stores each result as the JSON object of its dataclass in `wire.jobs`. A value that does
not fit its dataclass counts as not recorded: a bad description must not make a checkpoint unusable.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TypeVar

from quantchat.checkpoints.cache import BuiltCheckpoint
from quantchat.wire.codec import ProtocolError, from_json
from quantchat.wire.jobs import CalibrationUsed, MergedAdapter, ModuleLoss

_T = TypeVar("_T")


def calibration_used(made: BuiltCheckpoint | None) -> CalibrationUsed | None:
    """Return the calibration of a GPTQ checkpoint; None for other checkpoints."""
    return _read(CalibrationUsed, made, "calibration")


def merged_adapter(made: BuiltCheckpoint | None) -> MergedAdapter | None:
    """Return the adapter that was merged into the model; None if there is none."""
    return _read(MergedAdapter, made, "adapter")


def module_losses(made: BuiltCheckpoint | None) -> list[ModuleLoss]:
    """Return the loss of each module of a GPTQ checkpoint; empty for other checkpoints."""
    recorded = made.result.get("losses", []) if made else []
    try:
        return [from_json(ModuleLoss, one, saved=True) for one in recorded]
    except (ProtocolError, TypeError):
        return []


def tokens_written(made: BuiltCheckpoint | None) -> int:
    """Return the token count of a calibration set; 0 if not recorded."""
    return _number(made, "tokens") or 0


def cut_length(made: BuiltCheckpoint | None) -> int | None:
    """Return the length limit of calibration samples in tokens; None if not recorded."""
    return _number(made, "length")


def layers_resumed(made: BuiltCheckpoint | None) -> int:
    """Return the number of layers that an earlier, interrupted build quantized."""
    return _number(made, "resumed") or 0


def as_recorded(calibration: CalibrationUsed) -> dict[str, object]:
    """Return the JSON object for `made.json`, without empty chat template variables."""
    body = asdict(calibration)
    if not calibration.chat_template_kwargs:
        del body["chat_template_kwargs"]
    return body


def _read(cls: type[_T], made: BuiltCheckpoint | None, key: str) -> _T | None:
    recorded = made.result.get(key) if made else None
    try:
        return from_json(cls, recorded, saved=True) if recorded else None
    except ProtocolError:
        return None


def _number(made: BuiltCheckpoint | None, key: str) -> int | None:
    recorded = made.result.get(key) if made else None
    return recorded if type(recorded) is int else None
