"""The blocks of a model: the places between which long work can be left."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch


@contextlib.contextmanager
def before_each_block(model: Any, call: Callable[[], None]) -> Iterator[None]:
    """Have `call` called before each of the model's blocks; what it raises leaves the forward pass.

    Only for as long as this lasts: a compiled step must not find hooks on the modules.
    """
    lists = (m for m in model.modules() if isinstance(m, torch.nn.ModuleList))
    blocks = max(lists, key=len, default=())
    hooks = [block.register_forward_pre_hook(lambda *_: call()) for block in blocks]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
