"""The registered engines: quantchat's own and those of other installed packages.

A package registers an engine with an entry point of the group `quantchat.engines` that names an
`Engine` object; see docs/how-to/add-an-engine.md.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import sys
from typing import Any, NamedTuple

from quantchat.engines.engine import Engine, Method
from quantchat.engines.variant import VariantBase
from quantchat.wire.library import Library

_OWN = (
    "bitsandbytes", "gptq", "awq", "autoround", "torchao", "hqq", "auto_gptq", "transformers",
    "gguf", "openai",
)  # fmt: skip
"""Modules of this package that declare an engine, as `ENGINE`."""

GROUP = "quantchat.engines"
"""Entry points of other packages' engines."""


DEFAULT_METHODS = ("gptq", "nf4")
"""The methods to compare if the user names a full-precision model but no methods."""


class _Registry(NamedTuple):
    engines: dict[str, Engine[Any]]
    """The engines by name."""
    broken: dict[str, str]
    """Key: name of an entry point that names no usable engine; value: the reason."""


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
                raise TypeError(f"{point.value} is not a quantchat.engines.engine.Engine")
            if engine.name in found.engines:
                raise ValueError(f"another engine is called {engine.name}")
        except Exception as error:  # noqa: BLE001 - another package's code may raise anything, and must not break quantchat
            found.broken[point.name] = f"{type(error).__name__}: {error}"
        else:
            found.engines[engine.name] = engine
    return found


def _others_registered() -> bool:
    """Return whether any installed package has entry points of the group `GROUP`.

    Reads the packages' files itself, which takes 3 ms; `importlib.metadata` takes 70 ms.
    """
    group = f"[{GROUP}]".encode()
    for folder in sys.path:
        with contextlib.suppress(OSError), os.scandir(folder or ".") as entries:
            for entry in entries:
                if entry.name.endswith((".dist-info", ".egg-info")):
                    # Creating a Path for each package would take longer than reading its file.
                    file = f"{entry.path}/entry_points.txt"
                    with contextlib.suppress(OSError), open(file, "rb") as points:  # noqa: PTH123
                        if group in points.read():
                            return True
    return False


def engines() -> dict[str, Engine[Any]]:
    """Return the registered engines by name."""
    return _registry().engines


def broken() -> dict[str, str]:
    """Return why an entry point names no usable engine, by the name of the entry point."""
    return _registry().broken


def tables() -> tuple[type[VariantBase], ...]:
    """Return the profile table of each engine."""
    return tuple(engine.variant_table for engine in engines().values())


def engine_of(spec: VariantBase) -> Engine[Any]:
    """Return the engine of the variant `spec`."""
    return engines()[spec.engine]


def baseline() -> Engine[Any]:
    """Return the engine for full-precision models and checkpoints that no other engine claims."""
    return next(engine for engine in engines().values() if engine.is_baseline)


def engine_for(quant_method: str) -> Engine[Any]:
    """Return the engine that claims checkpoints of `quant_method`, else the baseline engine."""
    claiming = (e for e in engines().values() if quant_method in e.checkpoints)
    return next(claiming, baseline())


def computing_gguf() -> Engine[Any]:
    """Return the engine that computes with the quantized weights of GGUF files as they are."""
    return next(e for e in engines().values() if e.runs_gguf)


def engine_with(key: str) -> Engine[Any]:
    """Return the first engine whose profile table has the key `key`."""
    return next(e for e in engines().values() if key in e.variant_table.model_fields)


def methods() -> dict[str, tuple[Engine[Any], Method]]:
    """Return each quantization method with its engine, by the method's name."""
    return {
        method.name: (engine, method) for engine in engines().values() for method in engine.methods
    }


def libraries() -> tuple[Library, ...]:
    """Return the libraries of all engines without duplicates."""
    return tuple(dict.fromkeys(one for engine in engines().values() for one in engine.libraries))


def environments() -> dict[str, tuple[str, ...]]:
    """Return the requirements that engines declare, by the name of the environment."""
    return {name: of for engine in engines().values() for name, of in engine.environments.items()}
