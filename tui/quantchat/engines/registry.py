"""The registered engines: quantchat's own, and those of installed packages.

A package registers an engine by an entry point of the group `quantchat.engines`, whose object is an
`Engine`: see docs/add-an-engine.md.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

from quantchat.engines.engine import Engine, Method
from quantchat.engines.variant import VariantBase
from quantchat.wire.messages import Library

_OWN = ("bitsandbytes", "gptq", "auto_gptq", "transformers", "openai")
"""Modules of this package that declare an engine, as `ENGINE`."""

GROUP = "quantchat.engines"
"""Entry points of other packages' engines."""


DEFAULT_METHODS = ("gptq", "nf4")
"""The methods that are compared where a model in full precision is named and none is."""


class _Registry(NamedTuple):
    engines: dict[str, Engine[Any]]
    """By name."""
    broken: dict[str, str]
    """Entry points that give no engine, by name, with the reason."""


@functools.cache
def _registry() -> _Registry:
    own = (importlib.import_module(f"quantchat.engines.{module}").ENGINE for module in _OWN)
    found = _Registry({engine.name: engine for engine in own}, {})
    if not _others_registered():
        return found
    from importlib.metadata import entry_points

    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        try:
            engine = point.load()
            if not isinstance(engine, Engine):
                raise TypeError(f"{point.value} is no quantchat.engines.engine.Engine")
            if engine.name in found.engines:
                raise ValueError(f"another engine is called {engine.name}")
        except Exception as error:  # noqa: BLE001 - another package's code: the rest must go on
            found.broken[point.name] = f"{type(error).__name__}: {error}"
        else:
            found.engines[engine.name] = engine
    return found


def _others_registered() -> bool:
    """Whether the metadata of any installed package names the group.

    A look at the files costs 3 ms; importing `importlib.metadata` and asking it, 70 ms.
    """
    group = f"[{GROUP}]".encode()
    for folder in sys.path:
        with contextlib.suppress(OSError), os.scandir(folder or ".") as entries:
            for entry in entries:
                if entry.name.endswith((".dist-info", ".egg-info")):
                    with contextlib.suppress(OSError):
                        if group in Path(entry.path, "entry_points.txt").read_bytes():
                            return True
    return False


def engines() -> dict[str, Engine[Any]]:
    """Each registered engine, by name."""
    return _registry().engines


def broken() -> dict[str, str]:
    """The reason why an entry point gives no engine, by the entry point's name."""
    return _registry().broken


def tables() -> tuple[type[VariantBase], ...]:
    """The profile table of each engine."""
    return tuple(engine.table for engine in engines().values())


def engine_of(spec: VariantBase) -> Engine[Any]:
    """The engine of the variant `spec`."""
    return engines()[spec.engine]


def baseline() -> Engine[Any]:
    """The engine that loads models in full precision, and checkpoints that no other one claims."""
    return next(engine for engine in engines().values() if engine.is_baseline)


def engine_for(quant_method: str) -> Engine[Any]:
    """The engine that loads a finished checkpoint of `quant_method`."""
    claiming = (e for e in engines().values() if quant_method in e.checkpoints)
    return next(claiming, baseline())


def engine_with(key: str) -> Engine[Any]:
    """The first engine whose table has `key`."""
    return next(e for e in engines().values() if key in e.table.model_fields)


def methods() -> dict[str, tuple[Engine[Any], Method]]:
    """Each method of quantization by name, with the engine that offers it."""
    return {
        method.name: (engine, method) for engine in engines().values() for method in engine.methods
    }


def libraries() -> tuple[Library, ...]:
    """The libraries of all engines, each once."""
    return tuple(dict.fromkeys(one for engine in engines().values() for one in engine.libraries))
