"""List the quantization methods of all engines, and say which of them run on this machine."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass

from quantchat.engines.registry import methods
from quantchat.wire.library import Library


@dataclass(frozen=True)
class OfferedMethod:
    """A quantization method, and what it needs and lacks on this machine."""

    name: str
    """The name in the options `quantchat --with` and `quantchat quantize --method`."""
    label: str
    engine: str
    needs: str
    """The packages that the method needs besides torch, with commas between."""
    calibrated: bool
    made_here: bool
    """Whether `quantchat quantize` makes checkpoints with this method."""
    missing: str
    """The first missing package, with the command that installs it; empty if none is missing."""
    toml: str
    """The lines of a profile for a variant that uses this method."""


def offered_methods(model: str) -> Iterator[OfferedMethod]:
    """Yield each method of the installed engines; its `toml` applies it to `model`."""
    for name, (engine, method) in methods().items():
        lines = [
            "[[variants]]",
            f'label = "{method.label}"',
            f'engine = "{engine.name}"',
            f'model = "{model}"',
            *(_line(key, value) for key, value in method.keys.items()),
            *(["[variants.quantize]"] if method.calibrated else []),
        ]
        needed = (*method.made_with, *engine.libraries)
        yield OfferedMethod(
            name=name,
            label=method.label,
            engine=engine.name,
            needs=", ".join(library.package for library in needed),
            calibrated=method.calibrated,
            made_here=method.saved is not None,
            missing=next(filter(None, map(_missing, needed)), ""),
            toml="\n".join(lines),
        )


def _line(key: str, value: object) -> str:
    return f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {str(value).lower()}"


def _missing(library: Library) -> str:
    try:
        there = importlib.util.find_spec(library.module) is not None
    except (ImportError, ValueError):
        there = False
    return "" if there else f"{library.package} is missing: {library.command}"
