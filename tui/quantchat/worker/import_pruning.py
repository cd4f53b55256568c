"""Libraries that the ML libraries import where they are installed, and that no answer needs.

What they cost a worker: `python benchmarks/imports.py`. Loading should not wait for them, and what
a variant holds in memory should be its own.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any

from quantchat.wire.messages import Load

SCIENCE = ("matplotlib", "pandas", "scipy", "sklearn")
"""Which no loader of quantchat's own needs; each names what its libraries do without (`UNUSED`)."""


def hide(command: Load) -> None:
    """Let what `command` does not need be "not installed" in this process, before the imports.

    A module that is None in `sys.modules` cannot be imported (Python's own rule), and transformers
    takes it for absent. Code that a model's repository brings may need anything: nothing is hidden
    from it.
    """
    if command.trust_remote_code:
        return
    from quantchat.worker.loaders import loader_of  # which imports this

    modules: dict[str, Any] = sys.modules
    for name in getattr(loader_of(command), "UNUSED", ()):
        modules.setdefault(name, None)


@contextlib.contextmanager
def compiled_when_called() -> Iterator[None]:
    """While it lasts, what is decorated with `torch.compile` is compiled when it is first called.

    bitsandbytes, which GPTQModel imports as well, decorates its optimizers and what it computes by
    where it has no kernel. torch imports its whole compiler for a decorator alone.
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
