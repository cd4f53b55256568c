"""The decode loop of llama.cpp: prefill in chunks, then one token after the other."""

from __future__ import annotations

from typing import Any

import llama_cpp as c

from quantchat.wire.messages import Sampling
from quantchat.worker.decode.loop import RunningAnswer, common_prefix
from quantchat.worker.decode.native_loop import CHUNK, PREPARED_TOKENS
from quantchat.worker.llama.context import Context, Interrupted


class LlamaLoop:
    """Decodes with `context`; implements `decode.loop.Loop`."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def rewind(self, prompt: list[int]) -> int:
        """Keep only the cached tokens with which `prompt` begins; return their number."""
        self._context.cut(common_prefix(self._context.ids, prompt))
        return len(self._context.ids)

    def answer(self, prompt: list[int], answer: RunningAnswer) -> str:
        """Answer `prompt`, whose beginning is cached; return why the answer ended."""
        context = self._context
        context.prepare(len(prompt) + min(answer.max_tokens, PREPARED_TOKENS))
        if not self._prefill(prompt, answer):
            return "stop"
        sampler = Sampler(answer.sampling, context, prompt, answer.max_tokens)
        try:
            for count in range(1, answer.max_tokens + 1):
                inserted = answer.inserted
                token = sampler.choose() if inserted is None else sampler.take(inserted)
                if not answer.send(token):
                    return "eos"
                if answer.stopped:
                    return "stop"
                if count < answer.max_tokens:
                    context.run([token])
        finally:
            sampler.close()
        return "length"

    def warm_up(self, prompt: list[int], steps: int) -> None:
        """Decode `steps` tokens after `prompt` without sending them."""
        self._context.run(prompt)
        for _ in range(steps):
            self._context.run([int(self._context.logits()[0].argmax())])

    def forget(self) -> None:
        """Empty the KV cache; its memory stays allocated, as in llama.cpp's own programs."""
        self._context.clear()

    def kv_bytes(self) -> int:
        """Return the bytes allocated for the KV cache."""
        return self._context.cache.total()

    def _prefill(self, prompt: list[int], answer: RunningAnswer) -> bool:
        """Compute the part of `prompt` that is not cached; return whether it was finished."""
        cached, total = len(self._context.ids), len(prompt)
        for start in range(cached, total, CHUNK):
            chunk = prompt[start : start + CHUNK]
            try:
                if answer.stopped:
                    return False
                self._context.run(chunk, stopped=lambda: answer.stopped)
            except Interrupted:
                return False
            answer.prefilled(start + len(chunk) - cached, total - cached)
        return True


class Sampler:
    """Chooses the tokens of one answer with llama.cpp's samplers.

    Their order is the same as in transformers: logit bias, repetition penalty (over prompt and
    answer), presence and frequency penalty (over the answer), temperature, top-k, top-p, min-p.
    Then a token is drawn with a seed: the same logits give the same tokens. Temperature 0 takes the
    likeliest token. `most` is the largest number of tokens of the answer.
    """

    def __init__(self, sampling: Sampling, context: Context, prompt: list[int], most: int) -> None:
        self._context = context
        self._chain: Any = None
        greedy = sampling.temperature == 0
        penalized = bool(sampling.presence_penalty or sampling.frequency_penalty)
        biased = [c.llama_logit_bias(int(t), bias) for t, bias in sampling.logit_bias.items()]
        if greedy and sampling.repetition_penalty == 1.0 and not penalized and not biased:
            return  # `choose` takes the largest logit itself, without llama.cpp's samplers
        self._chain = c.llama_sampler_chain_init(c.llama_sampler_chain_default_params())
        if biased:
            array = (c.llama_logit_bias * len(biased))(*biased)
            self._add(c.llama_sampler_init_logit_bias(context.vocabulary, len(biased), array))
        if sampling.repetition_penalty != 1.0:
            penalty = c.llama_sampler_init_penalties(
                context.vocabulary, len(prompt) + most, sampling.repetition_penalty, 0.0, 0.0
            )
            for token in prompt:
                c.llama_sampler_accept(penalty, token)
            self._add(penalty)
        if penalized:
            frequency, presence = sampling.frequency_penalty, sampling.presence_penalty
            self._add(
                c.llama_sampler_init_penalties(
                    context.vocabulary, len(prompt) + most, 1.0, frequency, presence
                )
            )
        if greedy:
            self._add(c.llama_sampler_init_greedy())
            return
        if sampling.temperature != 1.0:
            self._add(c.llama_sampler_init_temp(sampling.temperature))
        if sampling.top_k:
            self._add(c.llama_sampler_init_top_k(sampling.top_k))
        if sampling.top_p < 1.0:
            self._add(c.llama_sampler_init_top_p(sampling.top_p, 1))
        if sampling.min_p:
            self._add(c.llama_sampler_init_min_p(sampling.min_p, 1))
        self._add(c.llama_sampler_init_dist(sampling.seed & 0xFFFFFFFF))

    def choose(self) -> int:
        """Return the next token's id. Waits until the last token has been computed."""
        if self._chain is None:
            return int(self._context.logits()[0].argmax())
        # This also reports the chosen token to the penalties.
        return int(c.llama_sampler_sample(self._chain, self._context.pointer, -1))

    def take(self, token: int) -> int:
        """Return `token`, which replaces a choice, and report it to the penalties."""
        if self._chain is not None:
            c.llama_sampler_accept(self._chain, token)
        return token

    def close(self) -> None:
        """Free the samplers."""
        if self._chain is not None:
            c.llama_sampler_free(self._chain)

    def _add(self, sampler: Any) -> None:
        c.llama_sampler_chain_add(self._chain, sampler)
