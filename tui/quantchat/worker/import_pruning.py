"""Import less: hide optional libraries, leave out torch's compiler, pause garbage collection.

A worker then loads faster and uses less memory: `python benchmarks/imports.py` measures how much.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import sys
from collections.abc import Iterable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

OPTIONAL = ("hqq", "matplotlib", "pandas", "scipy", "sklearn", "torchao")
"""Libraries that transformers or GPTQModel import where they are installed, and that most models do
not need. Each loader lists in its `UNUSED` which of them it does not need."""

QUANTIZERS = ("hqq", "torchao")
"""The libraries of `OPTIONAL` that quantize. A job that quantizes with another library needs
neither of them."""

_IMPORTED_BY = {"auto-round": ("pandas", "torchao"), "hqq": ("hqq",), "torchao": ("torchao",)}
"""Key: the `quant_method` of a checkpoint's quantization config; value: optional libraries that
loading such a checkpoint needs, or that the library of this method always imports. Checked with
auto-round 0.16."""


def hide(names: Iterable[str]) -> None:
    """Hide the libraries `names`, so that later imports do not find them.

    A library that is already imported stays available.
    """
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

    The objects that an import creates stay until the process ends, and the collector would examine
    all of them again and again. After the context, the collector ignores these objects
    (`gc.freeze`).
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
def without_compiler() -> Iterator[None]:
    """Import libraries and load a model without torch's compiler and torch.distributed.

    transformers, GPTQModel and bitsandbytes decorate functions for the compiler, and define classes
    for models on several machines; that alone would import 900 modules. While the context lasts,
    `torch.distributed` reports that it is not available, a function given to `torch.compile` is
    compiled only when it is first called, and `_STAND_INS` replace modules of the compiler, so that
    the decorators of these modules do nothing. Do not use the context in a process that compiles
    the model. After the context, everything can be imported as usual.
    """
    import torch

    if _COMPILER in sys.modules:
        yield  # nothing would be saved
        return
    compile_now, is_available = torch.compile, torch.distributed.is_available
    torch.compile = functools.partial(_compile_later, compile_now)
    torch.distributed.is_available = lambda: False
    sys.modules.update({name: kind(name) for name, kind in _STAND_INS.items()})
    try:
        yield
    finally:
        torch.compile, torch.distributed.is_available = compile_now, is_available
        _remove_stand_ins()


class _StandIn(ModuleType):
    """Stands in for a module. Access to an attribute that it lacks imports the real module."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.real(), name)

    def real(self) -> ModuleType:
        """Return the real module, and remove all stand-ins."""
        _remove_stand_ins()
        return importlib.import_module(self.__name__)


class _Compiler(_StandIn):
    @property
    def __path__(self) -> Any:  # type: ignore[override]
        """The package's folder, which Python reads before it imports a submodule."""
        return self.real().__path__

    @staticmethod
    def allow_in_graph(function: Any) -> Any:
        return function

    assume_constant_result = allow_in_graph

    @staticmethod
    def disable(function: Any = None, *_: Any, **__: Any) -> Any:
        return function if function is not None else lambda decorated: decorated

    @staticmethod
    def reset() -> None:
        """Do nothing, because nothing was compiled."""

    config = SimpleNamespace(cache_size_limit=0)
    """GPTQModel sets `cache_size_limit`, which has an effect only on compiled functions."""


class _Masks(_StandIn):
    class TransformGetItemToIndex:
        """Creates an object of the real class, which transformers needs for some masks."""

        def __new__(cls) -> Any:
            _remove_stand_ins()
            return importlib.import_module(_MASKS).TransformGetItemToIndex()


_COMPILER = "torch._dynamo"
_MASKS = "torch._dynamo._trace_wrapped_higher_order_op"
_STAND_INS = {_COMPILER: _Compiler, _MASKS: _Masks}


def _remove_stand_ins() -> None:
    for name in _STAND_INS:
        if isinstance(sys.modules.get(name), _StandIn):
            del sys.modules[name]


def _compile_later(compile_now: Any, function: Any = None, **options: Any) -> Any:
    import torch

    if function is None:
        return functools.partial(_compile_later, compile_now, **options)
    if isinstance(function, torch.nn.Module):  # `call` below could not replace a module
        return compile_now(function, **options)
    compiled = functools.cache(functools.partial(compile_now, function, **options))

    @functools.wraps(function)
    def call(*args: Any, **more: Any) -> Any:
        return compiled()(*args, **more)

    return call
