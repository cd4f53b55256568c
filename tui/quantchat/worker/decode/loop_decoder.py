"""Code that the decoders of local models share: encode the chat, check limits, report the turn.

`decoder.Decoder` adds the code for torch, `worker.llama.decoder` the code for llama.cpp. No module
that is imported here imports torch.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from quantchat.wire.messages import Generate, LoadModel, Message, ScoreTokens, Started, TokenScores
from quantchat.wire.variant import Ledger, ModelInfo
from quantchat.worker.decode.loop import Loop, RunningAnswer
from quantchat.worker.failures import Refused
from quantchat.worker.model.chat_template import render
from quantchat.worker.outbox import Outbox
from quantchat.worker.text_bounds import Interrupted, bounded

WARM_UP_TOKENS = 32
WARM_UP_STEPS = 4

LOGIT_ROWS = 64
"""Most positions whose logits are computed at once in teacher forcing: 33 MB in float32 with a
vocabulary of 128k."""

MIN_LOGPROB = -1000.0
"""Log-probability reported for an impossible token, because JSON has no infinity."""


class LoadedModel(Protocol):
    """The interface of a loaded model that decoders use, for every library."""

    @property
    def command(self) -> LoadModel:
        """The command that loaded the model."""

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer, with the methods of transformers' tokenizers."""

    @property
    def tokenizer_backend(self) -> Any:
        """The same tokenizer, with the methods of a `tokenizers.Tokenizer`."""

    @property
    def chat_template(self) -> bool:
        """Whether the model has a chat template."""

    @property
    def context_length(self) -> int:
        """Largest number of tokens of prompt and answer together."""

    @property
    def end_tokens(self) -> frozenset[int]:
        """Ids that end an answer."""

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens for which the model computes logits."""


def encode_prompt(loaded: LoadedModel, messages: Sequence[Message]) -> list[int]:
    """Return the token ids of `messages` in the model's chat template, ready for an answer.

    For a base model without a template, the texts are joined with line breaks, system prompt first,
    and the model continues the result.
    """
    if not loaded.chat_template:
        text = "\n".join(message.content for message in messages)
        return list(loaded.tokenizer_backend.encode(text).ids)
    variables = loaded.command.template_variables
    text = render(loaded.tokenizer, messages, variables)
    # The template itself adds the special tokens.
    return list(loaded.tokenizer_backend.encode(text, add_special_tokens=False).ids)


class LoopDecoder(ABC):
    """Answers prompts with `loop`, which decodes with the model `loaded`."""

    def __init__(self, loaded: LoadedModel, loop: Loop) -> None:
        self._model = loaded
        self._loop = loop

    def answer(
        self,
        request: Generate,
        received_ns: int,
        outbox: Outbox,
        stopped: Callable[[int], bool],
    ) -> None:
        """Decode one answer and send each token to `outbox`, until it ends or `stopped(turn)`.

        Raises Refused if the prompt leaves no room for an answer, or if `logit_bias` names a token
        that the model does not have.
        """
        sampling = request.sampling
        self._check_bias(sampling.logit_bias)
        self._set_threads(request.threads)
        try:
            with bounded("reading the prompt", lambda: stopped(request.turn)):
                prompt = self._prompt(request.messages, request.prompt_tokens)
        except Interrupted:
            outbox.send(Started(request.turn, received_ns, 0, 0))
            outbox.begin(request.turn)
            outbox.end(request.turn, "stop", time.perf_counter_ns())
            return
        if request.fresh:
            self.forget()
        room = self._model.context_length - len(prompt)
        if room < 1:
            raise Refused(
                "context_full",
                f"the context is full: the chat has {len(prompt)} tokens, "
                f"the model takes {self._model.context_length}",
                "remove the oldest turn, start a new chat, or send a shorter prompt",
            )
        cached = self._loop.rewind(prompt)
        outbox.send(Started(request.turn, received_ns, len(prompt), cached))
        # With `ignore_eos` the length of the answer is fixed, so no stop string may end it either.
        outbox.begin(request.turn, prompt, () if request.ignore_eos else sampling.stop)
        budget = sampling.max_thinking_tokens
        answer = RunningAnswer(
            number=request.turn,
            sampling=sampling,
            max_tokens=min(request.max_new_tokens, room),
            end_tokens=frozenset() if request.ignore_eos else self._model.end_tokens,
            outbox=outbox,
            asked_to_stop=stopped,
            thinking=outbox.thinking_limit(prompt, budget) if budget else None,
        )
        reason = self._loop.answer(prompt, answer)
        if reason == "length" and answer.max_tokens < request.max_new_tokens:
            reason = "context"
        outbox.end(request.turn, reason, time.perf_counter_ns())
        if request.fresh:
            self.forget()

    def score_tokens(self, request: ScoreTokens, cancelled: Callable[[], bool]) -> TokenScores:
        """Score the tokens of `request` by teacher forcing; the KV cache of the chat is unchanged.

        Raises Refused if that is not possible, and as soon as `cancelled` returns True.
        """
        self._set_threads(request.threads)
        with bounded("reading the prompt"):
            prompt = self._prompt(request.messages, request.prompt_tokens)
        return self._score(prompt, request, cancelled)

    def forget(self) -> None:
        """Empty the KV cache."""
        self._loop.forget()

    @property
    @abstractmethod
    def note(self) -> str:
        """Notes for the user on what runs."""

    @abstractmethod
    def model_info(self) -> ModelInfo:
        """Return a description of what really runs."""

    @abstractmethod
    def ledger(self) -> Ledger:
        """Return the memory ledger of this moment."""

    @abstractmethod
    def _score(
        self, prompt: list[int], request: ScoreTokens, cancelled: Callable[[], bool]
    ) -> TokenScores:
        """Score the tokens of `request` after `prompt`."""

    @abstractmethod
    def _set_threads(self, threads: int) -> None:
        """Use this many CPU threads; 0 changes nothing."""

    def _check_bias(self, logit_bias: Mapping[str, float]) -> None:
        """Raise Refused if `logit_bias` names a token that the model does not have."""
        size = self._model.vocabulary_size
        if unknown := [token for token in logit_bias if int(token) >= size]:
            raise Refused(
                "unsupported",
                f"logit_bias names token {unknown[0]}; the model has tokens 0 to {size - 1}",
                "correct logit_bias in the settings or in [generation] of the profile",
            )

    def _prompt(self, messages: list[Message], tokens: int) -> list[int]:
        """Return the ids of the chat, repeated or cut to `tokens`; 0: as they are."""
        prompt = encode_prompt(self._model, messages)
        return (prompt * -(-tokens // len(prompt)))[:tokens] if tokens else prompt
