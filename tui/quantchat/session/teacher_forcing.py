"""Teacher forcing: lets variants score the tokens of given answers."""

from __future__ import annotations

import asyncio
import itertools
import math

from quantchat.session.conversation import Answer, Turn, divergence_point, same_tokenizer
from quantchat.session.live_variant import LiveVariant
from quantchat.session.requests import threads_for
from quantchat.statistics.divergence import Continuation, DivergenceScore
from quantchat.statistics.surprisal import CrossPerplexity
from quantchat.wire.messages import END, ScoreTokens
from quantchat.wire.variant import ANY_SERVER, same_vocabulary

_numbers = itertools.count(1)


def is_greedy(answer: Answer) -> bool:
    """Return whether the answer was decoded greedily (temperature 0)."""
    return answer.request is not None and answer.request.sampling.temperature == 0


def greedy_divergence(turn: Turn, *, same: int = 0) -> int | None:
    """Return the divergence point of the first two answers, as an index into their tokens.

    Return None if an answer is not greedy, if the answers do not diverge or their tokens cannot be
    compared, or if one answer was cut off before the other diverged from it. The first `same`
    tokens are known to be equal.
    """
    answers = list(turn.answers.values())[:2]
    if len(answers) < 2 or not all(map(is_greedy, answers)) or not same_tokenizer(*answers):
        return None
    point = divergence_point(*answers, same=same)
    if point is None or any(point == len(a.ids) and a.reason != "eos" for a in answers):
        return None
    return point


async def score_divergence(turn: Turn, variants: list[LiveVariant]) -> DivergenceScore | None:
    """Let both variants compute the probabilities of the two tokens at which the answers diverge.

    `variants` are the variants of the first two answers of `turn`. Return None if these answers do
    not diverge. If a probability cannot be computed, `Continuation.problem` says why; nothing is
    raised.
    """
    point = greedy_divergence(turn)
    if point is None:
        return None
    first, second = list(turn.answers.values())[:2]
    continuations = await asyncio.gather(
        _continuation(variants[0], first, second, point),
        _continuation(variants[1], second, first, point),
    )
    return DivergenceScore(point, list(continuations))


async def cross_perplexities(turn: Turn, variants: list[LiveVariant]) -> None:
    """Let each of `variants` score the first two answers of `turn`; store the scores in them."""
    answers = [answer for answer in list(turn.answers.values())[:2] if answer.ids]
    for answer in answers:
        found = await asyncio.gather(*(_cross_perplexity(variant, answer) for variant in variants))
        answer.cross_perplexities = list(found)


async def _cross_perplexity(variant: LiveVariant, answer: Answer) -> CrossPerplexity:
    ready = variant.ready
    if ready is None or answer.ran_on is None:
        return CrossPerplexity(variant.label, problem="the variant is not loaded")
    if answer.from_server or ready.model_info.device in ANY_SERVER:
        return CrossPerplexity(variant.label, problem="servers report no token ids")
    if not same_vocabulary(ready.model_info, answer.ran_on.model_info):
        return CrossPerplexity(variant.label, problem="the variant's tokenizer differs")
    tokens = [*answer.ids, *([END] if answer.reason == "eos" else [])]
    scored = await variant.score_tokens(score_tokens_request(answer, tokens))
    return CrossPerplexity(variant.label, scored.logprobs, scored.problem)


async def _continuation(
    variant: LiveVariant, answer: Answer, other: Answer, point: int
) -> Continuation:
    own = _token(answer, point)
    text = "" if own == END else "".join(answer.output_pieces[point : point + 1])
    scored = await variant.score_tokens(
        score_tokens_request(
            answer, [*answer.ids[:point], own], first=point, also=[_token(other, point)]
        )
    )
    if scored.problem:
        return Continuation(answer.variant, text, problem=scored.problem)
    if own != END and not text.strip():
        text = scored.pieces[0]  # in the answer, this token completed no text
    return Continuation(
        answer.variant, text, math.exp(scored.logprobs[0]), math.exp(scored.also[0])
    )


def score_tokens_request(
    answer: Answer,
    ids: list[int],
    *,
    first: int = 0,
    also: list[int] | None = None,
    batch: int = 1,
    text: str = "",
) -> ScoreTokens:
    """Return the request to score the tokens `ids`, or `text`, after the prompt of `answer`.

    `first`, `also`, `batch` and `text` are fields of `ScoreTokens`. Raises ValueError if `answer`
    was never requested.
    """
    request = answer.request
    if request is None:
        raise ValueError("the answer was never requested")
    return ScoreTokens(
        number=next(_numbers),
        messages=request.messages,
        ids=ids,
        first=first,
        also=also or [],
        prompt_tokens=request.prompt_tokens,
        batch=batch,
        text=text,
        threads=threads_for(2),
    )


def _token(answer: Answer, point: int) -> int:
    return answer.ids[point] if point < len(answer.ids) else END
