"""The static step (`static.py`), compiled with torch.compile.

Inductor caches the compiled code in the folder `TORCHINDUCTOR_CACHE_DIR`.
"""

from __future__ import annotations

from typing import Any

import torch

from quantchat.common.triton_needs import compiler_problem
from quantchat.worker.decode.steps.static import StaticStep


class CompiledStep(StaticStep):
    """The static step, compiled once for all lengths of the cache: their size is marked dynamic."""

    def __init__(self, model: Any) -> None:
        super().__init__(model, "compile")
        self._compiled = torch.compile(self._forward, dynamic=None)

    def _decode(self, window: int) -> Any:
        layers = self.cache.layers
        places = torch.arange(layers[0].keys.shape[-2], device=self._position.device)
        torch._dynamo.maybe_mark_dynamic(places, 0)
        for layer in layers:
            for buffer in (layer.keys, layer.values):
                if not hasattr(buffer, "_dynamo_weak_dynamic_indices"):
                    torch._dynamo.maybe_mark_dynamic(buffer, 2)
        return self._compiled(places)


def missing_compiler(device: Any) -> str:
    """Return why nothing can be compiled for `device` (a `torch.device`), or an empty text."""
    if device.type != "cpu":
        return compiler_problem()
    from torch._inductor import cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        return "no C++ compiler (g++ or clang++) was found"
    return ""
