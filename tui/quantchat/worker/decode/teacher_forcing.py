"""How likely given tokens are to a model, each after those before it: teacher forcing.

It runs the model's own modules, by `readable` where a fused product took their weights into a
block, over a cache of its own. What the decode loop keeps is not touched:
the next answer begins as it would have, and no token of it is timed with this in between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quantchat.wire.messages import END, ScoreTokens, TokenScores
from quantchat.worker.decode.cache_rules import ORDINARY, CacheRules
from quantchat.worker.decode.caches import cache_parameter, growing_cache, position_argument
from quantchat.worker.decode.cpu import unfused_weights
from quantchat.worker.decode.native_loop import CHUNK
from quantchat.worker.decode.steps.eager import before_each_block, release
from quantchat.worker.failures import Refused
from quantchat.worker.model.loaded import Loaded

_ROWS = 64
"""Tokens whose logits are held at once: in float32 they take 33 MB with a vocabulary of 128k."""

_LEAST = -1000.0
"""Logarithm given for what a model holds impossible: JSON knows no infinity."""


def score_tokens(
    loaded: Loaded,
    prompt: list[int],
    request: ScoreTokens,
    overtaken: Callable[[], bool],
    rules: CacheRules = ORDINARY,
) -> TokenScores:
    """Return how likely `request.ids` are after `prompt`; `overtaken` is asked before each block.

    All is computed in one piece where `rules` allow no pieces.
    Raises Refused where that does not fit the context, or where it was overtaken.
    """
    import torch

    given = [*prompt, *request.ids[:-1]]  # the last one is asked about, not given
    if len(given) > loaded.context_length:
        raise Refused("context_full", "the answer does not fit the context of this model")
    need = len(prompt) + request.first - 1
    device = loaded.input_device
    cache = growing_cache(loaded.model.config)
    parameter, positions = cache_parameter(loaded.model), position_argument(loaded.model)
    in_pieces = rules.continues(0, len(given))
    rows = _Rows(loaded, request)
    at = 0

    def preempt() -> None:
        if overtaken():
            raise Refused("stopped", "it gave way to the next command")

    try:
        with (
            torch.inference_mode(),
            before_each_block(loaded.model, preempt),
            unfused_weights(loaded.model),
        ):
            while at < len(given):
                end = min(at + CHUNK, need) if at < need else at + _ROWS
                end = min(end, len(given)) if in_pieces else len(given)
                tokens = torch.tensor([given[at:end]], device=device)
                more = {parameter: cache}
                if positions:
                    more[positions] = torch.arange(at, end, device=device).unsqueeze(0)
                asked = end - max(at, need)
                output = loaded.model(
                    input_ids=tokens.expand(request.batch, -1),
                    **more,
                    use_cache=True,
                    logits_to_keep=max(1, asked),
                )
                if asked > 0:
                    for block in output.logits[0, -asked:].split(_ROWS):
                        rows.take(block)
                at = end
    finally:
        del cache
        release(device)
    return rows.forced()


class _Rows:
    """Gathers the figures of one position after the other."""

    def __init__(self, loaded: Loaded, request: ScoreTokens) -> None:
        self._tokenizer = loaded.tokenizer_backend
        self._ends = sorted(loaded.end_tokens)
        self._request = request
        self._left = request.ids[request.first :]
        self._logprobs: list[float] = []
        self._ranks: list[int] = []
        self._also: list[float] = []

    def take(self, logits: Any) -> None:
        """Take the next positions' `logits`, shape (n, vocabulary)."""
        import torch

        logprobs = torch.log_softmax(logits.float(), dim=-1)
        if bool(torch.isnan(logprobs).any()):
            raise Refused("internal", "the model computes what is no number")
        logprobs = logprobs.clamp(min=_LEAST)
        wanted, self._left = self._left[: len(logprobs)], self._left[len(logprobs) :]
        found = torch.stack(
            [self._of(row, token) for row, token in zip(logprobs, wanted, strict=False)]
        )
        self._logprobs += found.tolist()
        self._ranks += (logprobs > found[:, None]).sum(dim=-1).tolist()
        if not self._left:
            self._also = [float(self._of(logprobs[-1], token)) for token in self._request.also]

    def _of(self, row: Any, token: int) -> Any:
        """Log-probability of `token`; of all that end an answer together for `END`."""
        import torch

        return torch.logsumexp(row[self._ends], dim=0) if token == END else row[token]

    def forced(self) -> TokenScores:
        """All figures."""
        request = self._request
        return TokenScores(
            number=request.number,
            logprobs=self._logprobs,
            pieces=self._pieces(request.ids[request.first :]),
            ranks=self._ranks,
            also=self._also,
        )

    def _pieces(self, ids: list[int]) -> list[str]:
        decode = self._tokenizer.decode
        return ["" if i == END else decode([i], skip_special_tokens=False) for i in ids]
