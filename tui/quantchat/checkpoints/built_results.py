"""Read the results of jobs back from `made.json`, also where an older version wrote it.

The file stores each result as the JSON object of its dataclass in `wire.jobs`. What does not fit
that dataclass counts as not recorded: a checkpoint must not become unusable by its description.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TypeVar

from quantchat.checkpoints.cache import BuiltCheckpoint
from quantchat.wire.codec import ProtocolError, from_json
from quantchat.wire.jobs import CalibrationUsed, MergedAdapter, ModuleLoss

_T = TypeVar("_T")


def calibration_used(made: BuiltCheckpoint | None) -> CalibrationUsed | None:
    """Return what a GPTQ checkpoint was calibrated on; None for other checkpoints."""
    return _read(CalibrationUsed, made, "calibration")


def merged_adapter(made: BuiltCheckpoint | None) -> MergedAdapter | None:
    """Return the adapter that was merged into the model; None if there is none."""
    return _read(MergedAdapter, made, "adapter")


def module_losses(made: BuiltCheckpoint | None) -> list[ModuleLoss]:
    """Return the losses of a GPTQ checkpoint's modules; none for other checkpoints."""
    recorded = made.result.get("losses", []) if made else []
    try:
        return [from_json(ModuleLoss, one, saved=True) for one in recorded]
    except (ProtocolError, TypeError):
        return []


def tokens_written(made: BuiltCheckpoint | None) -> int:
    """Return the tokens of a calibration; 0 where they are not recorded."""
    return _number(made, "tokens") or 0


def cut_length(made: BuiltCheckpoint | None) -> int | None:
    """Return the tokens after which calibration samples were cut; None if not recorded."""
    return _number(made, "length")


def layers_resumed(made: BuiltCheckpoint | None) -> int:
    """Return the number of layers that an earlier try quantized."""
    return _number(made, "resumed") or 0


def as_recorded(calibration: CalibrationUsed) -> dict[str, object]:
    """Return the object for `made.json`, which holds template variables only if there are any."""
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
