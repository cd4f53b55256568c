"""The static step: all sizes and addresses are fixed, so that it can be compiled or captured.

The step reads its input token, the token's position and the KV cache from tensors that stay the
same from step to step. The position says where in the cache the token's keys and values are
written, and up to where attention may look. Prefill is computed eagerly.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from quantchat.common.memory_rules import bucket
from quantchat.worker.decode.growing_cache import GrowingLayer
from quantchat.worker.decode.steps import Stopped
from quantchat.worker.decode.steps.eager import EagerStep
from quantchat.worker.failures import Refused
from quantchat.worker.model.devices import gpus_of


class StaticStep(EagerStep):
    """The static step, run eagerly. `CompiledStep` and `GraphStep` make it fast.

    Raises Refused for a model whose cache or attention does not allow it.
    """

    def __init__(self, model: Any, name: str) -> None:
        super().__init__(model, name)
        config = model.config
        if len(gpus_of(model)) > 1:
            _refuse(name, "the weights lie on several GPUs")
        if not all(isinstance(layer, GrowingLayer) for layer in self.cache.layers):
            _refuse(name, "the model has sliding windows or recurrent states")
        if not self.cache.layers or config._attn_implementation != "sdpa":
            _refuse(name, f"its attention is {config._attn_implementation}, not sdpa")
        self._token = torch.zeros((1, 1), dtype=torch.long, device=model.device)
        self._position = torch.zeros((1,), dtype=torch.long, device=model.device)
        self._buffers: list[tuple[int, int]] = []
        """Address of each layer's keys, and the number of tokens allocated for them, at the last
        step. If the keys move to another address, the values move too."""

    def run(self, tokens: Any, stopped: Stopped | None = None) -> Any:
        """Append `tokens`, ids of shape (1, n); return the last one's logits, (1, vocabulary)."""
        layers = self.cache.layers
        length = layers[0].length
        if tokens.shape[1] > 1 or not layers[0].is_initialized:
            return super().run(tokens, stopped)
        with torch.inference_mode():
            for layer in layers:
                layer.reserve(length + 1)
            self._detect_moves()
            self._token.copy_(tokens)
            self._position.fill_(length)
            with self._writing_to_position():
                logits = self._decode(bucket(length + 1))
        for layer in layers:
            layer.length = length + 1
        self._length = length + 1
        return logits

    @contextlib.contextmanager
    def _writing_to_position(self) -> Iterator[None]:
        """Let the layers of the cache write to the index in `_position` while the context lasts."""
        for layer in self.cache.layers:
            layer.place = self._position
        try:
            yield
        finally:
            for layer in self.cache.layers:
                layer.place = None

    def _decode(self, window: int) -> Any:
        """Return the logits of the step, which reads the first `window` tokens of the buffers."""
        for layer in self.cache.layers:
            layer.window = window
        places = torch.arange(window, device=self._position.device)
        return self._forward(places)

    def _detect_moves(self) -> None:
        """Call `_moved` if the buffers have changed since the last call.

        Besides steps, a prompt that needs larger buffers moves them, and so may a preparation that
        ends because memory runs out.
        """
        layers = self.cache.layers
        buffers = [(layer.keys.data_ptr(), layer.keys.shape[-2]) for layer in layers]
        if buffers != self._buffers:
            self._moved()
            self._buffers = buffers

    def _moved(self) -> None:
        """React to a move of the cache's buffers; nothing to do here."""

    def _forward(self, places: Any) -> Any:
        """Return the logits of the step. `places` are the token indices that attention reads."""
        # A mask that is added to the attention scores, in their dtype: a boolean mask would cost
        # each layer three kernels for its conversion.
        mask = torch.zeros(places.shape, dtype=self._model.dtype, device=places.device)
        mask = mask.masked_fill(places > self._position, float("-inf"))
        output = self._model(
            input_ids=self._token,
            attention_mask=mask.view(1, 1, 1, -1),
            position_ids=self._position.unsqueeze(0),
            **{self._cache_parameter: self.cache},
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1]


def _refuse(name: str, why: str) -> None:
    raise Refused("unsupported", f'decode = "{name}" is not possible: {why}', 'use decode = "auto"')
