"""Teacher forcing with llama.cpp: compute the log-probabilities of given tokens.

This uses a new `Context` (llama.cpp's KV cache), so the KV cache of the chat stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from quantchat.wire.messages import END, ScoreTokens, TokenScores
from quantchat.worker.decode.loop_decoder import LOGIT_ROWS, MIN_LOGPROB
from quantchat.worker.decode.native_loop import CHUNK
from quantchat.worker.failures import Refused
from quantchat.worker.llama.context import Interrupted
from quantchat.worker.llama.model import LlamaModel


def score_tokens(
    model: LlamaModel, prompt: list[int], request: ScoreTokens, cancelled: Callable[[], bool]
) -> TokenScores:
    """Return the log-probabilities and ranks of the tokens `request.ids[first:]` after `prompt`.

    A rank is the number of tokens that are likelier at the same position. The result also has the
    log-probabilities of the tokens `request.also` at the last position. `cancelled` is called
    during the work; if it returns True, the work ends. Raises Refused if the tokens do not fit into
    the context, or after a cancellation.
    """
    inputs = [*prompt, *request.ids[:-1]]  # the last token is only scored, never an input
    if len(inputs) > model.context_length:
        raise Refused("context_full", "the answer does not fit into the context of this model")
    first_scored = len(prompt) + request.first - 1
    targets = request.ids[request.first :]
    ends = sorted(model.end_tokens)
    logprobs: list[float] = []
    ranks: list[int] = []
    also: list[float] = []
    context = model.context(outputs=LOGIT_ROWS, rows=request.batch)
    at = 0
    try:
        context.prepare(len(inputs))
        while at < len(inputs):
            end = min(at + CHUNK, first_scored) if at < first_scored else at + LOGIT_ROWS
            end = min(end, len(inputs))
            scored_rows = end - max(at, first_scored)
            context.run(inputs[at:end], logit_rows=max(1, scored_rows), stopped=cancelled)
            if scored_rows > 0:
                rows = log_softmax(context.logits(scored_rows))
                for row, token in zip(rows, targets[len(logprobs) :], strict=False):
                    found = _logprob_of(row, token, ends)
                    logprobs.append(found)
                    ranks.append(int((row > found).sum()))
                if len(logprobs) == len(targets):
                    also = [_logprob_of(rows[-1], token, ends) for token in request.also]
            at = end
    except Interrupted as error:
        raise Refused("stopped", "cancelled by another command") from error
    finally:
        context.close()
    decode = model.tokenizer_backend.decode
    pieces = ["" if i == END else decode([i], skip_special_tokens=False) for i in targets]
    return TokenScores(request.number, logprobs, pieces, ranks, also)


def log_softmax(logits: Any) -> Any:
    """Return the log-probabilities, each at least `MIN_LOGPROB`, of `logits` (n, vocabulary)."""
    if numpy.isnan(logits).any():
        raise Refused("internal", "the model computes NaN (not a number)")
    shifted = logits - logits.max(axis=-1, keepdims=True)
    norm = numpy.log(numpy.exp(shifted).sum(axis=-1, keepdims=True, dtype=numpy.float64))
    return numpy.maximum(shifted - norm.astype(numpy.float32), MIN_LOGPROB)


def _logprob_of(row: Any, token: int, ends: list[int]) -> float:
    """Return the log-probability of `token` in `row`, the log-probabilities of one position.

    For the token `END`, return that of all tokens `ends` together.
    """
    return float(numpy.logaddexp.reduce(row[ends]) if token == END else row[token])
