"""Teacher forcing: compute the log-probability of each given token after the tokens before it.

It runs the model's own modules with a separate cache. The cache of the decode loop is not changed,
so the next answer starts from that cache as usual.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quantchat.wire.messages import END, ScoreTokens, TokenScores
from quantchat.worker.decode.cache_rules import ORDINARY, CacheRules
from quantchat.worker.decode.caches import (
    cache_parameter,
    growing_cache,
    position_argument,
    variant_cache,
)
from quantchat.worker.decode.cpu import unfused_weights
from quantchat.worker.decode.loop_decoder import LOGIT_ROWS, MIN_LOGPROB
from quantchat.worker.decode.native_loop import CHUNK
from quantchat.worker.decode.steps.eager import before_each_block, release_unused
from quantchat.worker.failures import Refused
from quantchat.worker.model.loaded import Loaded


def score_tokens(
    loaded: Loaded,
    prompt: list[int],
    request: ScoreTokens,
    cancelled: Callable[[], bool],
    rules: CacheRules = ORDINARY,
) -> TokenScores:
    """Return the log-probabilities and ranks of `request.ids` after `prompt`.

    If `rules` do not allow chunks, all tokens are computed at once. `cancelled` is called before
    each block of the model. Raises Refused if `cancelled` returns True, or if the tokens do not fit
    into the context.
    """
    import torch

    inputs = [*prompt, *request.ids[:-1]]  # the last token is only scored, never an input
    if len(inputs) > loaded.context_length:
        raise Refused("context_full", "the answer does not fit into the context of this model")
    first_scored = len(prompt) + request.first - 1
    device = loaded.input_device
    new_cache = variant_cache(loaded.command, loaded.model.config)
    cache = new_cache() if new_cache else growing_cache(loaded.model.config)
    parameter, positions = cache_parameter(loaded.model), position_argument(loaded.model)
    in_chunks = rules.can_append(0, len(inputs))
    rows = _Scores(loaded, request)
    at = 0

    def check_cancelled() -> None:
        if cancelled():
            raise Refused("stopped", "cancelled by another command")

    try:
        with (
            torch.inference_mode(),
            before_each_block(loaded.model, check_cancelled),
            unfused_weights(loaded.model),
        ):
            while at < len(inputs):
                end = min(at + CHUNK, first_scored) if at < first_scored else at + LOGIT_ROWS
                end = min(end, len(inputs)) if in_chunks else len(inputs)
                tokens = torch.tensor([inputs[at:end]], device=device)
                more = {parameter: cache}
                if positions:
                    more[positions] = torch.arange(at, end, device=device).unsqueeze(0)
                scored_rows = end - max(at, first_scored)
                output = loaded.model(
                    input_ids=tokens.expand(request.batch, -1),
                    **more,
                    use_cache=True,
                    logits_to_keep=max(1, scored_rows),
                )
                if scored_rows > 0:
                    for block in output.logits[0, -scored_rows:].split(LOGIT_ROWS):
                        rows.take(block)
                at = end
    finally:
        del cache
        release_unused(device)
    return rows.scores()


class _Scores:
    """Collects the log-probabilities and ranks, position by position."""

    def __init__(self, loaded: Loaded, request: ScoreTokens) -> None:
        self._tokenizer = loaded.tokenizer_backend
        self._ends = sorted(loaded.end_tokens)
        self._request = request
        self._remaining = request.ids[request.first :]
        self._logprobs: list[float] = []
        self._ranks: list[int] = []
        self._also: list[float] = []

    def take(self, logits: Any) -> None:
        """Add the `logits` of the next positions, shape (n, vocabulary)."""
        import torch

        logprobs = torch.log_softmax(logits.float(), dim=-1)
        if bool(torch.isnan(logprobs).any()):
            raise Refused("internal", "the model computes NaN (not a number)")
        logprobs = logprobs.clamp(min=MIN_LOGPROB)
        targets, self._remaining = (
            self._remaining[: len(logprobs)],
            self._remaining[len(logprobs) :],
        )
        found = torch.stack(
            [self._logprob_of(row, token) for row, token in zip(logprobs, targets, strict=False)]
        )
        self._logprobs += found.tolist()
        self._ranks += (logprobs > found[:, None]).sum(dim=-1).tolist()
        if not self._remaining:
            self._also = [
                float(self._logprob_of(logprobs[-1], token)) for token in self._request.also
            ]

    def _logprob_of(self, row: Any, token: int) -> Any:
        """Return the log-probability of `token`; for `END`, that of all end tokens together."""
        import torch

        return torch.logsumexp(row[self._ends], dim=0) if token == END else row[token]

    def scores(self) -> TokenScores:
        """Return the log-probabilities and ranks of all positions."""
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
