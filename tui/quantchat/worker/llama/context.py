"""A context of llama.cpp: the KV cache of a chat, and the logits after its last tokens."""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import llama_cpp as c
import numpy

from quantchat.common.memory_rules import bucket
from quantchat.worker.decode.native_loop import CHUNK
from quantchat.worker.failures import Refused
from quantchat.worker.llama.library import LogCapture

Stopped = Callable[[], bool]

_CACHE_FULL, _ABORTED = 1, 2
"""Return values of `llama_decode`: the KV cache is full; the computation was aborted."""


class Interrupted(Exception):
    """The computation was stopped; the cache is as it was before the computation."""


@dataclass(frozen=True)
class Settings:
    """Settings for the contexts of a model.

    `type_k` and `type_v` are GGML's numbers for the types of the cached keys and values.
    """

    type_k: int
    type_v: int
    context_length: int
    """Largest number of tokens in the cache."""
    fixed: bool
    """Whether the cache is allocated for `context_length` at once and does not grow."""
    on_gpu: bool


class Context:
    """The KV cache of one sequence of tokens, which grows by many tokens at a time.

    `outputs` is the largest number of positions whose logits one call of `run` computes. `rows` is
    the number of identical sequences that are computed at once.
    """

    def __init__(self, model: Any, settings: Settings, *, outputs: int = 1, rows: int = 1) -> None:
        self._model = model
        self._settings = settings
        self._outputs = outputs
        self._rows = rows
        self._threads = 0
        self._pointer: Any = None
        self._batch: Any = None
        self.vocabulary = int(c.llama_vocab_n_tokens(c.llama_model_get_vocab(model)))
        self.ids: list[int] = []
        """The cached tokens."""
        self.length = 0
        """Number of tokens for which the cache is allocated."""
        self.cache: Counter[str] = Counter()
        """Bytes of the KV cache and of recurrent states, by the name of GGML's backend."""
        self.compute: Counter[str] = Counter()
        """Bytes of intermediate results and logits, by the name of GGML's backend."""
        self.flash = False
        """Whether attention is computed by a fused kernel."""

    def set_threads(self, threads: int) -> None:
        """Use `threads` CPU threads."""
        self._threads = threads
        if self._pointer:
            c.llama_set_n_threads(self._pointer, threads, threads)

    def prepare(self, tokens: int) -> None:
        """Allocate the cache for `tokens` tokens; its content stays.

        Raises Refused if llama.cpp cannot create a context of this length.
        """
        most = self._settings.context_length
        length = most if self._settings.fixed else min(bucket(tokens), most)
        if length <= self.length:
            return
        state = self._save() if self.ids else None
        self.close()
        self._open(length)
        if state is not None:
            self._restore(state)

    def cut(self, tokens: int) -> None:
        """Keep the first `tokens` tokens; none if the cache cannot be cut (recurrent states)."""
        if tokens >= len(self.ids):
            return
        memory = c.llama_get_memory(self._pointer)
        if tokens and all(
            c.llama_memory_seq_rm(memory, row, tokens, -1) for row in range(self._rows)
        ):
            del self.ids[tokens:]
        else:
            self.clear()

    def clear(self) -> None:
        """Remove all tokens; the memory stays allocated."""
        self.ids = []
        if self._pointer:
            c.llama_memory_clear(c.llama_get_memory(self._pointer), False)

    def run(self, ids: list[int], *, logit_rows: int = 1, stopped: Stopped | None = None) -> None:
        """Append `ids`, at most `CHUNK`, and compute the logits of the last `logit_rows`.

        `stopped` is called between operations on a CPU; if it returns True, Interrupted is raised.
        Raises Refused if llama.cpp cannot compute the tokens.
        """
        self.prepare(len(self.ids) + len(ids))
        self._fill(ids, logit_rows)
        before = len(self.ids)
        if stopped is None:
            status = c.llama_decode(self._pointer, self._batch)
        else:
            callback = c.ggml_abort_callback(lambda _: stopped())
            c.llama_set_abort_callback(self._pointer, callback, None)
            status = c.llama_decode(self._pointer, self._batch)
            none = ctypes.cast(ctypes.c_void_p(), c.ggml_abort_callback)
            c.llama_set_abort_callback(self._pointer, none, None)
        if status == 0:
            self.ids += ids
            return
        # Part of the batch may be in the cache: remove it.
        self.ids += ids
        self.cut(before)
        if status == _ABORTED:
            raise Interrupted
        if status == _CACHE_FULL:
            raise Refused(
                "context_full", "the KV cache of llama.cpp has no room for the next token"
            )
        raise Refused("internal", f"llama.cpp cannot compute these tokens (llama_decode: {status})")

    def logits(self, count: int = 1) -> Any:
        """Return the logits of the last `count` positions computed, (count, vocabulary), float32.

        The array is the library's own memory, which the next `run` overwrites.
        """
        pointer = c.llama_get_logits(self._pointer)
        return numpy.ctypeslib.as_array(pointer, (count, self.vocabulary))

    @property
    def pointer(self) -> Any:
        """The context of the C library."""
        return self._pointer

    def close(self) -> None:
        """Free all memory."""
        if self._pointer:
            c.llama_batch_free(self._batch)
            c.llama_free(self._pointer)
        self._pointer = None
        self.ids, self.length = [], 0
        self.cache.clear()
        self.compute.clear()

    # ------------------------------------------------------------ the library

    def _open(self, tokens: int) -> None:
        settings = self._settings
        parameters = c.llama_context_default_params()
        parameters.n_ctx = tokens * self._rows
        parameters.n_batch = parameters.n_ubatch = CHUNK * self._rows
        parameters.n_seq_max = self._rows
        parameters.n_outputs_max = parameters.n_outputs_max_per_seq = self._outputs
        parameters.type_k, parameters.type_v = settings.type_k, settings.type_v
        parameters.offload_kqv = settings.on_gpu
        parameters.op_offload = settings.on_gpu
        if self._threads:
            parameters.n_threads = parameters.n_threads_batch = self._threads
        captured = LogCapture()
        self._pointer = c.llama_init_from_model(self._model, parameters)
        if not self._pointer:
            raise _no_context(tokens, captured.fault)
        self._batch = c.llama_batch_init(CHUNK * self._rows, 0, 1)
        self.length = tokens
        self.cache = captured.buffers("KV", "RS")
        self.compute = captured.buffers("compute", "output")
        self.flash = any(
            "Flash Attention enabled" in line or "flash_attn            = enabled" in line
            for line in captured.lines
        )

    def _fill(self, ids: list[int], logit_rows: int) -> None:
        batch, count = self._batch, 0
        first, position = len(ids) - logit_rows, len(self.ids)
        for row in range(self._rows):
            for n, token in enumerate(ids):
                batch.token[count] = token
                batch.pos[count] = position + n
                batch.n_seq_id[count] = 1
                batch.seq_id[count][0] = row
                batch.logits[count] = row == 0 and n >= first
                count += 1
        batch.n_tokens = count

    def _save(self) -> tuple[list[int], Any]:
        size = c.llama_state_seq_get_size(self._pointer, 0)
        state = (ctypes.c_uint8 * size)()
        c.llama_state_seq_get_data(self._pointer, state, size, 0)
        return self.ids, state

    def _restore(self, saved: tuple[list[int], Any]) -> None:
        ids, state = saved
        if c.llama_state_seq_set_data(self._pointer, state, len(state), 0):
            self.ids = ids


def _no_context(tokens: int, fault: str) -> Refused:
    if "alloc" in fault or "memory" in fault:
        return Refused(
            "out_of_memory",
            f"llama.cpp has no memory for a KV cache of {tokens} tokens: {fault}",
            'set a smaller n_ctx, type_k = "q8_0" and type_v = "q8_0", or fewer n_gpu_layers',
        )
    return Refused(
        "unsupported", f"llama.cpp cannot create a context: {fault or 'see the worker log'}"
    )
