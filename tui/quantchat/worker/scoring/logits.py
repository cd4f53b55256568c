"""Computes the logits of a window for a few positions at a time, to limit memory.

A window is the tokens that the model reads at a time. All logits of a window are (length of the
window) × (size of the vocabulary) numbers: over a gigabyte in float32 for 2048 tokens and a
vocabulary of 128k. So the model runs without its output head, which is then applied to a few
positions at a time. That is wrong for a model that changes its logits after the head (Gemma 2 caps
them, Cohere scales them). A trial compares both methods; if their results differ, all logits are
computed at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from quantchat.worker.decode.caches import cache_parameter, variant_cache
from quantchat.worker.failures import Refused
from quantchat.worker.model.loaded import Loaded
from quantchat.worker.scoring.products import fast_products

BLOCK_LOGITS = 2**22
"""Most logits that are computed at a time: 16 MiB in float32, and a few times that for intermediate
results."""

CHUNK = 64
"""Tokens that are computed at a time with a quantized KV cache. Attention uses the exact keys and
values of the chunk's own tokens, and the quantized ones of the tokens before it."""

_TRIAL_TOKENS = 16
"""Number of tokens in the trial."""


class Forecast:
    """Computes the logits of a loaded model after each token of a text."""

    def __init__(self, loaded: Loaded, trial: list[int]) -> None:
        """Run the trial on the first tokens of `trial`, the token ids of any text."""
        self._model = loaded.model
        self._device = loaded.input_device
        self._new_cache = variant_cache(loaded.command, loaded.model.config)
        self._head, self.vocabulary = self._try(trial[:_TRIAL_TOKENS])

    @property
    def splits(self) -> bool:
        """Whether logits are computed for a few positions at a time, and not for all at once."""
        return self._head is not None

    def logits(self, ids: list[int], first: int) -> Iterator[Any]:
        """Yield the logits after each token of `ids` from index `first` on, in blocks of positions.

        A block is float32, (positions, vocabulary). Raises Refused for a NaN.
        """
        import torch

        with torch.inference_mode():
            states = self._all_logits(ids) if self._head is None else self._states(ids)
            for block in states[first:].split(max(1, BLOCK_LOGITS // self.vocabulary)):
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
        """Return the inputs of the output head, a row for each token of `ids`."""
        return self._run(self._model.base_model, ids, "last_hidden_state")

    def _outputs(self, states: Any) -> Any:
        """Return the outputs of the output head for its inputs `states`."""
        with fast_products(self._device):
            return self._head(states)

    def _all_logits(self, ids: list[int]) -> Any:
        return self._run(self._model, ids, "logits")

    def _run(self, module: Any, ids: list[int], output: str) -> Any:
        """Run `module` on `ids`, and return its output called `output`, a row for each token."""
        import torch

        with fast_products(self._device):
            if self._new_cache is None:
                return getattr(module(input_ids=self._input(ids), use_cache=False), output)[0]
            named, cache = cache_parameter(module), self._new_cache()
            pieces = [
                module(input_ids=self._input(ids[start : start + CHUNK]), **{named: cache})
                for start in range(0, len(ids), CHUNK)
            ]
        return torch.cat([getattr(piece, output)[0] for piece in pieces])

    def _try(self, trial: list[int]) -> tuple[Any, int]:
        """Return the output head and the size of the vocabulary.

        None is returned in place of the head if its outputs are not the logits, or if the model
        cannot run without it, as with an adapter.
        """
        import torch

        head = self._model.get_output_embeddings()
        with torch.inference_mode():
            logits = self._all_logits(trial).float()
            if head is None or self._model.base_model is self._model:
                return None, logits.shape[-1]
            try:
                split_logits = head(self._states(trial)).to(logits)
            except AttributeError:
                return None, logits.shape[-1]
        same = logits.shape == split_logits.shape and torch.allclose(
            logits, split_logits, rtol=1e-3, atol=1e-2
        )
        return head if same else None, logits.shape[-1]
