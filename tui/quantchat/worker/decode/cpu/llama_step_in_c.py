"""The step of `llama_step`, with all that lies between the matrix products computed in C.

For one token, torch takes longer to start some 25 operations in each layer than they take to
compute: a third of a token's time with the demo's model. Here they are four or five calls of C
functions (`llama_step.c`).
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from quantchat.worker.decode.cpu.c_library import compiled
from quantchat.worker.decode.cpu.llama_step import LlamaStep, llama_step
from quantchat.worker.decode.steps import Interrupted, Stopped

_SOURCE = Path(__file__).with_name("llama_step.c")

_FEW_THREADS = 4
_SHORT = 2**18
"""With up to `_FEW_THREADS` threads, attention in C is faster at every length, although it uses one
thread. With more threads it is faster while the width of the query × the tokens in the cache are
fewer than `_SHORT`."""


class LlamaStepInC(LlamaStep):
    """A `LlamaStep` that computes single tokens with `llama_step.c`; built by `llama_step_in_c`."""

    name = "eager, fused Llama steps in C"

    def __init__(self, model: Any, blocks: list[Any], head: Any) -> None:
        super().__init__(model, blocks, head)
        self._c = _Functions(ctypes.PyDLL(str(compiled(_SOURCE))))
        row = self._embedding.new_empty
        self._normed_row = row((1, self._embedding.shape[1]))
        self._attended = row((1, self._heads * self._head_size))
        self._gated = row((1, self._mlp_width))
        self._scores = torch.empty(0)

    def _grow(self, tokens: int) -> None:
        super()._grow(tokens)
        self._scores = torch.empty(self._heads // self._kv_heads * self._capacity)

    def _run(self, ids: Any, stopped: Stopped | None) -> Any:
        if len(ids) > 1:
            return super()._run(ids, stopped)
        place, end = self._length, self._length + 1
        if end > self._capacity:
            self._grow(end)
        c, normed, gated = self._c, self._normed_row, self._gated
        cos, sin = self._cos[place].data_ptr(), self._sin[place].data_ptr()
        sizes = (self._heads, self._kv_heads, self._head_size, self._capacity)
        width = self._attended.numel()
        attends = torch.get_num_threads() <= _FEW_THREADS or width * end < _SHORT
        x = functional.embedding(ids, self._embedding)
        to_norm = (normed.data_ptr(), normed.shape[1], self._epsilon)
        # The result of a product must stay in a variable until C has read it.
        down, down_at = None, None
        for block, keys, values in zip(self._blocks, self._keys, self._values, strict=True):
            if stopped is not None and stopped():
                raise Interrupted(cache_intact=True)  # cache places beyond `_length` are not read
            c.add_and_norm(x.data_ptr(), down_at, block.before.data_ptr(), *to_norm)
            qkv = block.qkv(normed)
            cache = (keys.data_ptr(), values.data_ptr())
            c.rotate_and_store(qkv.data_ptr(), cos, sin, *cache, *sizes, place)
            if attends:
                attended = self._attended
                buffers = (attended.data_ptr(), self._scores.data_ptr())
                c.attend(qkv.data_ptr(), *cache, *buffers, *sizes, end)
            else:
                attended = self._attend_one(qkv[:, :width], keys[:, :, :end], values[:, :, :end])
            output = block.output(attended)
            c.add_and_norm(x.data_ptr(), output.data_ptr(), block.after.data_ptr(), *to_norm)
            gate_up = block.gate_up(normed)
            c.gate(gate_up.data_ptr(), gated.data_ptr(), self._mlp_width)
            down = block.down(gated)
            down_at = down.data_ptr()
        c.add_and_norm(x.data_ptr(), down_at, self._norm.data_ptr(), *to_norm)
        self._length = end
        return self._head(normed)


class _Functions:
    """The functions of `llama_step.c`, which describes their arguments.

    They take microseconds, so they keep Python's lock: `ctypes.CDLL` would release it each time.
    """

    def __init__(self, library: ctypes.PyDLL) -> None:
        pointer, number = ctypes.c_void_p, ctypes.c_long
        self.add_and_norm = library.add_and_norm
        self.add_and_norm.argtypes = [*4 * [pointer], number, ctypes.c_float]
        self.gate = library.gate
        self.gate.argtypes = [*2 * [pointer], number]
        self.rotate_and_store = library.rotate_and_store
        self.rotate_and_store.argtypes = [*5 * [pointer], *5 * [number]]
        self.attend = library.attend
        self.attend.argtypes = [*5 * [pointer], *5 * [number]]
        for function in vars(self).values():
            function.restype = None


def llama_step_in_c(model: Any) -> LlamaStep | None:
    """Return the step for `model`, or None for another kind of model. Check the step before use.

    Raises what `compiled` raises if there is no compiler.
    """
    return llama_step(model, LlamaStepInC) if _bfloat16(model) else None


def _bfloat16(model: Any) -> bool:
    """Return whether everything that the C functions read is bfloat16."""
    norms = [one for one in model.modules() if type(one).__name__.endswith("RMSNorm")]
    holders = [model.get_input_embeddings(), *norms]
    return all(one.weight.dtype is torch.bfloat16 for one in holders)
