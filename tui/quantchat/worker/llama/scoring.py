"""The logits of a window of text as torch tensors, for the job that scores texts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from quantchat.worker.decode.native_loop import CHUNK
from quantchat.worker.failures import Refused
from quantchat.worker.llama.model import LlamaModel

_LOGITS = 2**22
"""Most logits computed at a time: 16 MiB in float32."""


class LlamaForecast:
    """Computes a model's logits for each next token, with the interface of `logits.Forecast`."""

    def __init__(self, model: LlamaModel) -> None:
        self.vocabulary = model.own_tokenizer.size
        self._rows = max(1, min(CHUNK, _LOGITS // self.vocabulary))
        self._context = model.context(outputs=self._rows)

    def logits(self, ids: list[int], first: int) -> Iterator[Any]:
        """Yield the logits after each token of `ids` from index `first` on, in blocks of rows.

        A row (float32) has one logit for each token of the vocabulary. Raises Refused for a NaN.
        """
        import torch

        context = self._context
        context.clear()
        context.prepare(len(ids))
        for start in range(0, first, CHUNK):
            context.run(ids[start : min(start + CHUNK, first)])
        for start in range(first, len(ids), self._rows):
            block = ids[start : start + self._rows]
            context.run(block, logit_rows=len(block))
            logits = torch.from_numpy(context.logits(len(block)).copy())
            if logits.isnan().any():
                raise Refused(
                    "unsupported",
                    "the model computes logits that are not numbers (NaN)",
                    "try another quantization of the model",
                )
            yield logits
