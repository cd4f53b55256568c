"""The generate loop: transformers' `generate`, unchanged, as a baseline for the native loop.

Long prompts are computed in chunks of the same length as in the native loop (`generate`'s option
`prefill_chunk_size`). Computed in one piece, a long prompt could not be stopped for seconds on a
CPU.

`generate` runs in the caller's thread. Usually it runs in a second thread, which fills the queue of
a streamer. Then two threads run torch, which halves the speed on a CPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from packaging.version import Version
from transformers import GenerationConfig, LogitsProcessorList, __version__
from transformers.generation.streamers import BaseStreamer

from quantchat.wire.messages import Sampling
from quantchat.worker.decode.cache_rules import ORDINARY, CacheRules
from quantchat.worker.decode.caches import cache_parameter, can_roll_back, plain_cache
from quantchat.worker.decode.draft import Draft, DraftCounter, check_cache
from quantchat.worker.decode.loop import RunningAnswer, common_prefix
from quantchat.worker.decode.native_loop import CHUNK
from quantchat.worker.decode.sampling import biases, penalties
from quantchat.worker.decode.steps.eager import before_each_block, release_unused
from quantchat.worker.failures import Refused
from quantchat.worker.memory import kv_cache_bytes

CHUNKS_AFTER_A_CACHE = Version(__version__) >= Version("5.21")
"""Whether `generate` chunks only the tokens that are not cached. Older releases of transformers,
among them the last one for Python 3.10, chunk the whole prompt and compute cached tokens again."""

_NO_TOKEN = 2**31 - 1
"""The id to pass as the end token if no token should end the answer. None would mean the model's
own end tokens, and a negative id makes transformers warn at each step with a draft."""


class GenerateLoop:
    """Decodes with `model.generate`."""

    def __init__(
        self,
        model: Any,
        device: Any,
        rules: CacheRules = ORDINARY,
        new_cache: Callable[[], Any] | None = None,
        draft: Draft | None = None,
    ) -> None:
        """Use the caches that `new_cache` creates; without it, transformers' own caches.

        With a `draft` each prompt is computed from its start, because transformers' assisted
        generation computes all of it even if a part is cached. Raises Refused for a model that
        cannot be used with a draft.
        """
        self._new_cache = new_cache or (lambda: plain_cache(model.config))
        self._model = model
        self._rules = rules
        """`appendable` is also False for a cache that has only recurrent states (Mamba 2). Such a
        cache does not know its length, which `generate` needs to append to the cache."""
        self._cache_parameter = cache_parameter(model)
        self._device = device
        self._ids: list[int] = []
        self._cache = self._new_cache()
        try:
            self._cache.get_seq_length()
        except ValueError:
            self._rules = replace(rules, appendable=False)
        self._draft = draft
        self._counter: DraftCounter | None = None
        """Counts the drafted tokens of the last answer; None without a draft."""
        if draft is not None:
            check_cache(self._cache, rules)
            self._rules = replace(rules, appendable=False)

    def rewind(self, prompt: list[int]) -> int:
        """Keep only the cached tokens with which `prompt` begins; return their number."""
        same = common_prefix(self._ids, prompt)
        surplus = len(self._ids) - same
        kept = self._rules.can_reuse(len(self._ids), same, len(prompt))
        if not kept or (surplus and not can_roll_back(self._cache)):
            self.forget()
        elif surplus:
            self._cache.crop(-surplus)
            del self._ids[same:]
        return len(self._ids)

    def answer(self, prompt: list[int], answer: RunningAnswer) -> str:
        """Answer `prompt`, whose beginning is cached; return why the answer ended."""
        new = len(prompt) - len(self._ids)
        in_chunks = (
            new > CHUNK
            and (CHUNKS_AFTER_A_CACHE or not self._ids)
            and self._rules.can_append(len(self._ids), len(prompt))
        )
        if self._draft is not None:
            if answer.thinking is not None:
                raise Refused(
                    "unsupported",
                    "max_thinking_tokens is not possible with a draft, which checks several tokens"
                    " at once",
                    "set max_thinking_tokens = 0, or leave out `draft`",
                )
            self._counter = DraftCounter(len(prompt))
        listener = _Listener(answer, new, self._counter)
        settings = _settings(
            answer.sampling, answer.max_tokens, answer.end_tokens, CHUNK if in_chunks else None
        )
        torch.manual_seed(answer.sampling.seed)
        try:
            with self._watched(answer, listener):
                self._generate(
                    prompt,
                    settings,
                    streamer=listener,
                    logits_processor=LogitsProcessorList(
                        [*penalties(answer.sampling, len(prompt)), _InsertedToken(answer)]
                    ),
                    **{self._cache_parameter: self._cache},
                )
        except _Stopped:
            if not listener.tokens:
                self.forget()  # some layers, not all, may have cached the tokens of this chunk
                return "stop"
            listener.reason = "stop"
        if self._counter is not None:
            answer.outbox.send(self._counter.event(answer.number))
        self._remember([*prompt, *listener.tokens])
        return listener.reason

    def _watched(self, answer: RunningAnswer, listener: _Listener) -> ExitStack:
        """Return a context in which `generate` can be stopped and drafted tokens are counted."""
        stack = ExitStack()
        stack.enter_context(_interruptible(self._model, answer, listener))
        if self._draft is not None and self._counter is not None:
            if self._draft.model is not None:
                stack.enter_context(_interruptible(self._draft.model, answer, listener))
            stack.enter_context(self._counter.watching(self._model, self._draft))
        return stack

    def _remember(self, ids: list[int]) -> None:
        """Set `_ids` to the cached part of `ids`, usually all but the last token."""
        if not self._rules.appendable:
            return  # nothing is ever appended to this cache, and it may not know its length
        surplus = self._cache.get_seq_length() - len(ids)
        if surplus > 0:  # on a GPU, `generate` computes one step ahead of the tokens it reports
            if not can_roll_back(self._cache):
                self.forget()
                return
            self._cache.crop(-surplus)
        self._ids = ids[: self._cache.get_seq_length()]

    def warm_up(self, prompt: list[int], steps: int) -> None:
        """Decode `steps` tokens after `prompt` without sending them."""
        self._generate(prompt, _settings(Sampling(), steps, frozenset()))

    def _generate(self, prompt: list[int], settings: GenerationConfig, **more: Any) -> None:
        """Run `generate` with `settings` only, without the checkpoint's generation config."""
        if self._draft is not None:
            settings.update(**self._draft.settings)
            more |= self._draft.arguments
        ids = torch.tensor([prompt], device=self._device)
        own, self._model.generation_config = self._model.generation_config, settings
        try:
            with torch.inference_mode():
                self._model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    generation_config=settings,
                    **more,
                )
        finally:
            self._model.generation_config = own

    def forget(self) -> None:
        """Drop the KV cache and free its memory."""
        self._ids = []
        self._cache = self._new_cache()
        self._counter = None
        release_unused(self._device)

    def kv_bytes(self) -> int:
        """Return the bytes of the KV caches of model and draft. These caches have no spare room."""
        counter = self._counter
        return kv_cache_bytes(self._cache) + (counter.kv_bytes() if counter else 0)


def _settings(
    sampling: Sampling, most: int, end_tokens: frozenset[int], chunk: int | None = None
) -> GenerationConfig:
    chosen = (
        {
            "do_sample": True,
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
            "min_p": sampling.min_p or None,
        }
        if sampling.temperature
        else {"do_sample": False}
    )
    return GenerationConfig(
        max_new_tokens=most,
        sequence_bias=biases(sampling) or None,
        repetition_penalty=sampling.repetition_penalty,
        eos_token_id=sorted(end_tokens) or [_NO_TOKEN],
        pad_token_id=0,
        use_cache=True,
        prefill_chunk_size=chunk,
        **chosen,
    )


class _InsertedToken:
    """A logits processor that allows only the token `answer.inserted`, unless that is None."""

    def __init__(self, answer: RunningAnswer) -> None:
        self._answer = answer

    def __call__(self, _input_ids: Any, scores: Any) -> Any:
        inserted = self._answer.inserted
        if inserted is None:
            return scores
        only = torch.full_like(scores, -torch.inf)
        only[:, inserted] = 0
        return only


class _Listener(BaseStreamer):  # type: ignore[misc]
    """Receives the tokens from `generate` as soon as they are known; with a draft, several at once.

    `to_prefill` is the number of prompt tokens that are not cached.
    """

    def __init__(
        self, answer: RunningAnswer, to_prefill: int, counter: DraftCounter | None = None
    ) -> None:
        self._answer = answer
        self._to_prefill = to_prefill
        self._counter = counter
        self._has_prompt = False
        self.tokens: list[int] = []
        """The chosen tokens, with the end token."""
        self.reason = "length"

    def put(self, value: Any) -> None:
        if not self._has_prompt:
            self._has_prompt = True
            return
        if not self.tokens:
            self._answer.prefilled(self._to_prefill, self._to_prefill)
        tokens: list[int] = value.flatten().tolist()
        now = time.perf_counter_ns()
        if self._counter is not None:
            self._counter.accept(tokens)
        for token in tokens:
            self.tokens.append(token)
            if not self._answer.send(token, now):
                self.reason = "eos"
                return
            if self._answer.stopped:
                raise _Stopped  # `generate` checks its stopping criteria before calling `put`

    def end(self) -> None:
        pass


class _Stopped(Exception):
    """Ends `generate` early."""


def _interruptible(model: Any, answer: RunningAnswer, listener: _Listener) -> Any:
    """Return a context that ends `generate` if the user stops the answer during the prefill.

    The check is made before each block of `model`.
    """

    def check() -> None:
        if not listener.tokens and answer.stopped:
            raise _Stopped

    return before_each_block(model, check)
