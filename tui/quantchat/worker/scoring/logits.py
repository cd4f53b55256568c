"""The logits of a window, a few positions at a time, so that no vocabulary is too large.

A window's logits all at once are `window` x vocabulary numbers, over a gigabyte in float32 for
2048 tokens of a modern tokenizer. So the model runs without its last layer, and that one is applied
to some positions at a time. Where a model does more after its last layer (Gemma 2 caps its logits,
Cohere scales them) this would be wrong: it is tried once, and then all is asked at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from quantchat.worker.failures import Refused
from quantchat.worker.model.loaded import Loaded

NUMBERS = 2**22
"""Logits held at a time, in float32: 16 MiB, and a few times that for what is worked out."""

_TRIED = 16
"""Tokens of the trial."""


class Forecast:
    """What a loaded model says of each next token."""

    def __init__(self, loaded: Loaded, trial: list[int]) -> None:
        """`trial` is any text of the model's, some tokens long."""
        self._model = loaded.model
        self._device = loaded.input_device
        self._head, self.vocabulary = self._try(trial[:_TRIED])

    def logits(self, ids: list[int], first: int) -> Iterator[Any]:
        """Logits after each token of `ids` from `first` on, float32: blocks of rows, in order.

        A row is as long as the vocabulary. Raises Refused where a logit is no number.
        """
        import torch

        with torch.inference_mode():
            states = self._whole(ids) if self._head is None else self._states(ids)
            for block in states[first:].split(max(1, NUMBERS // self.vocabulary)):
                logits = (block if self._head is None else self._head(block)).float()
                if logits.isnan().any():
                    raise Refused(
                        "unsupported",
                        "the model says what is no number (NaN)",
                        "try another dtype or kernel",
                    )
                yield logits

    def _input(self, ids: list[int]) -> Any:
        import torch

        return torch.tensor([ids], device=self._device)

    def _states(self, ids: list[int]) -> Any:
        """What goes into the last layer."""
        output = self._model.base_model(input_ids=self._input(ids), use_cache=False)
        return output.last_hidden_state[0]

    def _whole(self, ids: list[int]) -> Any:
        return self._model(input_ids=self._input(ids), use_cache=False).logits[0]

    def _try(self, trial: list[int]) -> tuple[Any, int]:
        """The last layer if the logits are what it gives and nothing more, else None; their number.

        None as well where what is below the last layer cannot be had by itself, as below adapters.
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
