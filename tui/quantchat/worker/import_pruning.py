"""Hide optional libraries that the ML libraries would import although no answer needs them.

A worker then loads faster and uses less memory: `python benchmarks/imports.py` measures how much.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

OPTIONAL = ("hqq", "matplotlib", "pandas", "scipy", "sklearn", "torchao")
"""Libraries that transformers or GPTQModel import where they are installed, and that most models do
not need. A loader lists in its `UNUSED` those that it does without."""

QUANTIZERS = ("hqq", "torchao")
"""Those of `OPTIONAL` that quantize models: no job needs them that quantizes with another one."""

_IMPORTED_BY = {"auto-round": ("pandas", "torchao"), "hqq": ("hqq",), "torchao": ("torchao",)}
"""Key: a `quant_method`; value: optional libraries that its checkpoints need, or that the library
of this method always imports. Checked with auto-round 0.16."""


def hide(names: Iterable[str]) -> None:
    """Hide the libraries `names` from those that are imported later, unless they are imported."""
    modules: dict[str, Any] = sys.modules  # None as a value: importing that module fails
    for name in names:
        modules.setdefault(name, None)


def unhide(quant_method: str) -> None:
    """Stop hiding the libraries that loading a checkpoint of `quant_method` imports."""
    for name in _IMPORTED_BY.get(quant_method, ()):
        if name in sys.modules and sys.modules[name] is None:
            del sys.modules[name]


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """Pause garbage collection while the context lasts; use it for imports.

    What an import creates stays until the process ends, and the collector would look through all of
    it again and again. Afterwards these objects are no longer looked through at all.
    """
    if not gc.isenabled():
        yield  # an outer context resumes it
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextlib.contextmanager
def compiled_when_called() -> Iterator[None]:
    """Delay `torch.compile` of decorated functions to their first call while the context lasts.

    bitsandbytes (and GPTQModel, which imports it) decorates functions that a worker rarely calls,
    and the decorator alone makes torch import its whole compiler.
    """
    import torch

    compile_now: Any = torch.compile

    def compile_later(function: Any = None, **options: Any) -> Any:
        if function is None:
            return functools.partial(compile_later, **options)
        if isinstance(function, torch.nn.Module):
            return compile_now(function, **options)
        return _later(function, functools.partial(compile_now, function, **options))

    torch.compile = compile_later
    try:
        yield
    finally:
        torch.compile = compile_now


def _later(function: Callable[..., Any], make: Callable[[], Callable[..., Any]]) -> Any:
    made = functools.cache(make)

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        return made()(*args, **options)

    return call
