"""Computes the logits of a window for a few positions at a time, to limit memory.

All logits of a window are `window` x vocabulary numbers: over a gigabyte in float32 for 2048 tokens
of a modern tokenizer. So the model runs without its last layer, which is then applied to a few
positions at a time. That is wrong for a model that changes its logits afterwards (Gemma 2 caps
them, Cohere scales them). So a trial compares both methods, and such a model computes all logits at
once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from quantchat.worker.decode.caches import cache_parameter, variant_cache
from quantchat.worker.failures import Refused
from quantchat.worker.model.loaded import Loaded
from quantchat.worker.scoring.products import fast_products

NUMBERS = 2**22
"""Logits computed at a time: 16 MiB in float32, and a few times that for intermediate results."""

PIECE = 64
"""Tokens that are read at a time through a quantized KV cache. Attention uses the exact keys and
values of a piece's own tokens, and the quantized ones of the tokens before."""

_TRIED = 16
"""Number of tokens in the trial."""


class Forecast:
    """Computes a loaded model's logits for each next token."""

    def __init__(self, loaded: Loaded, trial: list[int]) -> None:
        """Run the trial on the first tokens of `trial`, which may be any text."""
        self._model = loaded.model
        self._device = loaded.input_device
        self._new_cache = variant_cache(loaded.command, loaded.model.config)
        self._head, self.vocabulary = self._try(trial[:_TRIED])

    @property
    def splits(self) -> bool:
        """Whether logits are computed for a few positions at a time, and not for all at once."""
        return self._head is not None

    def logits(self, ids: list[int], first: int) -> Iterator[Any]:
        """Yield the logits after each token of `ids` from index `first` on, in blocks of rows.

        A row (float32) has one logit for each token of the vocabulary. Raises Refused for a NaN.
        """
        import torch

        with torch.inference_mode():
            states = self._whole(ids) if self._head is None else self._states(ids)
            for block in states[first:].split(max(1, NUMBERS // self.vocabulary)):
                logits = (block if self._head is None else self._outputs(block)).float()
                if logits.isnan().any():
                    raise Refused(
                        "unsupported",
                        "the model computes logits that are not numbers (NaN)",
                        "try another dtype or kernel",
                    )
                yield logits

    def _input(self, ids: list[int]) -> Any:
        import torch

        return torch.tensor([ids], device=self._device)

    def _states(self, ids: list[int]) -> Any:
        """Return the inputs of the last layer."""
        return self._run(self._model.base_model, ids, "last_hidden_state")

    def _outputs(self, states: Any) -> Any:
        """Return the outputs of the last layer."""
        with fast_products(self._device):
            return self._head(states)

    def _whole(self, ids: list[int]) -> Any:
        return self._run(self._model, ids, "logits")

    def _run(self, module: Any, ids: list[int], output: str) -> Any:
        """Return the `output` of `module` after each token of `ids`, one row for each token."""
        import torch

        with fast_products(self._device):
            if self._new_cache is None:
                return getattr(module(input_ids=self._input(ids), use_cache=False), output)[0]
            named, cache = cache_parameter(module), self._new_cache()
            pieces = [
                module(input_ids=self._input(ids[start : start + PIECE]), **{named: cache})
                for start in range(0, len(ids), PIECE)
            ]
        return torch.cat([getattr(piece, output)[0] for piece in pieces])

    def _try(self, trial: list[int]) -> tuple[Any, int]:
        """Return the last layer and the size of the vocabulary.

        The layer is None if its outputs are not the logits, or if the layers below it cannot run by
        themselves, as with adapters.
        """
        import torch

        head = self._model.get_output_embeddings()
        with torch.inference_mode():
            whole = self._whole(trial).float()
            if head is None or self._model.base_model is self._model:
                return None, whole.shape[-1]
            try:
                alone = head(self._states(trial)).to(whole)
            except AttributeError:
                return None, whole.shape[-1]
        same = whole.shape == alone.shape and torch.allclose(whole, alone, rtol=1e-3, atol=1e-2)
        return head if same else None, whole.shape[-1]
