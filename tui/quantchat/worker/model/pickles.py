"""Pickled weights are refused: opening a pickle runs whatever code it holds."""

from __future__ import annotations

from pathlib import Path

from quantchat.worker.failures import Refused

SUFFIXES = frozenset({".bin", ".ckpt", ".pkl", ".pt", ".pth"})
"""Of files that torch and transformers write with pickle."""

CONVERT = (
    "convert them where that is safe: AutoModelForCausalLM.from_pretrained(…).save_pretrained(…)"
)
SWITCH = "or, if you trust where they are from, add allow_pickle = true to the variant"


def pickled_file(folder: Path) -> Path | None:
    """The first file in `folder` that is a pickle by its name, if there is one."""
    return next((f for f in sorted(folder.iterdir()) if f.suffix in SUFFIXES), None)


def refuse_pickled(model: str, *, switch: bool) -> None:
    """Refuse a folder whose weights are pickled, and name the cure.

    `switch`: whether the engine can open them at all. An id of a hub is let pass. Raises Refused.
    """
    folder = Path(model)
    if not folder.is_dir() or any(folder.glob("*.safetensors")):
        return
    pickled = pickled_file(folder)
    if pickled is not None:
        raise _refused(f"the weights are pickled ({pickled.name})", switch=switch)


def refuse_all_pickled(folder: Path, model: str, *, switch: bool) -> None:
    """Refuse `model`, of which what is no pickle was fetched into `folder`, if no weights came.

    `switch`: whether who asks can open pickles at all.
    """
    if not any(folder.glob("*.safetensors")):
        what = f"{model} has no safetensors, and other weights are pickled"
        raise _refused(what, switch=switch)


def _refused(what: str, *, switch: bool) -> Refused:
    hint = f"{CONVERT}; {SWITCH}" if switch else CONVERT
    return Refused("bad_checkpoint", f"{what}: opening them could run any code", hint)
