"""Lets EleutherAI's lm-evaluation-harness use a llama.cpp model, as its `HFLM` does for torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantchat.wire.messages import Sampling
from quantchat.worker.decode.loop import common_prefix
from quantchat.worker.decode.native_loop import CHUNK
from quantchat.worker.harness_model import HarnessModel
from quantchat.worker.llama.loop import Sampler
from quantchat.worker.llama.model import LlamaModel
from quantchat.worker.llama.teacher_forcing import log_softmax

_ROWS = 64
"""Most positions whose logits are computed at once."""


class LlamaLM(HarnessModel):
    """Answers with `model`. `variables` are the variables of the chat template."""

    def __init__(self, model: LlamaModel, variables: Mapping[str, Any]) -> None:
        super().__init__(model.command.model, model.tokenizer, variables, model.context_length)
        self._model = model
        self._context = model.context(outputs=_ROWS)

    # ------------------------------------------------------------ the model

    def _likelihood(self, context: list[int], continuation: list[int]) -> tuple[float, bool]:
        """Return the log-likelihood of `continuation`, and whether greedy decoding gives it."""
        inputs = [*context, *continuation][-(self._context_length + 1) :][:-1]
        first = len(inputs) - len(continuation)
        # The cache stores no logits, so keep only tokens whose logits are not needed.
        self._keep(inputs[: first + 1])
        for start in range(len(self._context.ids), first, CHUNK):
            self._context.run(inputs[start : min(start + CHUNK, first)])
        total, greedy = 0.0, True
        for start in range(first, len(inputs), _ROWS):
            block = inputs[start : start + _ROWS]
            self._context.run(block, logit_rows=len(block))
            targets = continuation[start - first : start - first + len(block)]
            for row, token in zip(
                log_softmax(self._context.logits(len(block))), targets, strict=True
            ):
                total += float(row[token])
                greedy = greedy and int(row.argmax()) == token
        return total, greedy

    def _generated(self, ids: list[int], sampling: Sampling, most: int, until: list[str]) -> str:
        self._keep(ids)
        for start in range(len(self._context.ids), len(ids), CHUNK):
            self._context.run(ids[start : start + CHUNK])
        sampler = Sampler(sampling, self._context, ids, most)
        tokens: list[int] = []
        text = ""
        try:
            while len(tokens) < most and (token := sampler.choose()) not in self._model.end_tokens:
                tokens.append(token)
                text = self.tokenizer.decode(tokens, skip_special_tokens=True)
                if any(stop in text for stop in until):
                    break
                self._context.run([token])
        finally:
            sampler.close()
        return text

    def _keep(self, ids: list[int]) -> None:
        """Keep only the cached tokens with which `ids` begins, without the last of `ids`."""
        self._context.cut(common_prefix(self._context.ids, ids))
