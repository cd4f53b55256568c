"""What variants think of tokens that were said: teacher forcing."""

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
from quantchat.wire.variant import SERVERS

_numbers = itertools.count(1)


def is_greedy(answer: Answer) -> bool:
    """Whether the likeliest token was said each time."""
    return answer.request is not None and answer.request.sampling.temperature == 0


def greedy_divergence(turn: Turn, *, same: int = 0) -> int | None:
    """Where the first two answers part by their own choice: both greedy, and none cut off there.

    None where they do not, and where their tokens cannot be compared. The first `same` tokens are
    known to be equal.
    """
    answers = list(turn.answers.values())[:2]
    if len(answers) < 2 or not all(map(is_greedy, answers)) or not same_tokenizer(*answers):
        return None
    point = divergence_point(*answers, same=same)
    if point is None or any(point == len(a.ids) and a.reason != "eos" for a in answers):
        return None
    return point


async def score_divergence(turn: Turn, variants: list[LiveVariant]) -> DivergenceScore | None:
    """Ask each variant for its probabilities where `turn` parts; None where it does not.

    `variants` are those of the first two answers. Unknown is told as a problem; nothing is raised.
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
    """Have each of `variants` read each of the first two answers of `turn`, and note it there."""
    answers = [one for one in list(turn.answers.values())[:2] if one.ids]
    for answer in answers:
        found = await asyncio.gather(*(_read(variant, answer) for variant in variants))
        answer.cross_perplexities = list(found)


async def _read(variant: LiveVariant, answer: Answer) -> CrossPerplexity:
    ready = variant.ready
    if ready is None or answer.ready is None:
        return CrossPerplexity(variant.label, problem="it is not loaded")
    if answer.in_chunks or ready.resolved.device in SERVERS:
        return CrossPerplexity(variant.label, problem="a server tells no token ids")
    if ready.resolved.tokenizer_hash != answer.ready.resolved.tokenizer_hash:
        return CrossPerplexity(variant.label, problem="its tokenizer is another one")
    said = [*answer.ids, *([END] if answer.reason == "eos" else [])]
    asked = await variant.score_tokens(score_tokens_request(answer, said))
    return CrossPerplexity(variant.label, asked.logprobs, asked.problem)


async def _continuation(
    variant: LiveVariant, answer: Answer, other: Answer, point: int
) -> Continuation:
    own = _token(answer, point)
    said = "" if own == END else "".join(answer.output_pieces[point : point + 1])
    asked = await variant.score_tokens(
        score_tokens_request(
            answer, [*answer.ids[:point], own], first=point, also=[_token(other, point)]
        )
    )
    if asked.problem:
        return Continuation(answer.variant, said, problem=asked.problem)
    if own != END and not said.strip():
        said = asked.pieces[0]  # a token that made no text final then
    return Continuation(answer.variant, said, math.exp(asked.logprobs[0]), math.exp(asked.also[0]))


def score_tokens_request(
    answer: Answer, ids: list[int], *, first: int = 0, also: list[int] | None = None, batch: int = 1
) -> ScoreTokens:
    """The request to tell how likely `ids` are after the chat that `answer` answers."""
    request = answer.request
    if request is None:
        raise ValueError("the answer was never asked for")
    return ScoreTokens(
        number=next(_numbers),
        messages=request.messages,
        ids=ids,
        first=first,
        also=also or [],
        prompt_tokens=request.prompt_tokens,
        batch=batch,
        threads=threads_for(2),
    )


def _token(answer: Answer, point: int) -> int:
    return answer.ids[point] if point < len(answer.ids) else END
