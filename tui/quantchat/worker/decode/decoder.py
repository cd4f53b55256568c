"""The decoder: a loaded model that answers prompts, one at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cached_property

from quantchat.wire.messages import Generate, Message, ScoreTokens, Started, TokenScores
from quantchat.wire.variant import Ledger
from quantchat.worker.decode.attention import BackendRecord
from quantchat.worker.decode.loop import Turn
from quantchat.worker.decode.modes import Report, choose
from quantchat.worker.decode.teacher_forcing import score_tokens
from quantchat.worker.failures import Refused
from quantchat.worker.memory import LedgerReader
from quantchat.worker.model.chat_template import render
from quantchat.worker.model.loaded import Loaded
from quantchat.worker.outbox import Outbox
from quantchat.worker.text_bounds import Interrupted, bounded

WARM_UP_TOKENS = 32
WARM_UP_STEPS = 4


def encode_prompt(loaded: Loaded, messages: Sequence[Message]) -> list[int]:
    """Return the token ids of `messages` in the model's chat template, ready for an answer.

    For a base model without a template the texts are joined line by line, system prompt first, and
    the model continues them.
    """
    if not loaded.chat_template:
        text = "\n".join(message.content for message in messages)
        return list(loaded.tokenizer_backend.encode(text).ids)
    variables = loaded.command.options.get("chat_template_kwargs", {})
    text = render(loaded.tokenizer, messages, variables)
    # The template writes the special tokens itself.
    return list(loaded.tokenizer_backend.encode(text, add_special_tokens=False).ids)


class Decoder:
    """Answers prompts with a loaded model, with the loop for `mode` (see `modes.choose`).

    The constructor warms the loop up, because first calls repack weights, compile kernels and fill
    caches: no TTFT should include that. `report` receives stages that take long. Raises Refused for
    a mode that cannot run here.
    """

    def __init__(self, loaded: Loaded, mode: str, report: Report) -> None:
        self._loaded = loaded
        attention = BackendRecord()
        with nullcontext() if mode == "compile" else attention.recording():
            self.chosen = choose(loaded, mode, report)
            self._loop = self.chosen.loop
            ids = list(range(min(WARM_UP_TOKENS, loaded.context_length - 2 * WARM_UP_STEPS)))
            self._loop.warm_up(ids, WARM_UP_STEPS)
        self.attention_backend = str(attention)
        self._loop.forget()

    def answer(
        self,
        request: Generate,
        received_ns: int,
        outbox: Outbox,
        stopped: Callable[[int], bool],
    ) -> None:
        """Decode one answer and send each token to `outbox`, until it ends or `stopped(turn)`.

        Raises Refused(context_full) where the prompt leaves no room for an answer.
        """
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
        room = self._loaded.context_length - len(prompt)
        if room < 1:
            raise Refused(
                "context_full",
                f"the context is full: the chat has {len(prompt)} tokens, "
                f"the model takes {self._loaded.context_length}",
                "drop the oldest turn, begin a new chat, or send something shorter",
            )
        cached = self._loop.rewind(prompt)
        outbox.send(Started(request.turn, received_ns, len(prompt), cached))
        outbox.begin(request.turn, prompt)
        turn = Turn(
            number=request.turn,
            sampling=request.sampling,
            most=min(request.max_new_tokens, room),
            end_tokens=frozenset() if request.ignore_eos else self._loaded.end_tokens,
            outbox=outbox,
            asked_to_stop=stopped,
        )
        reason = self._loop.answer(prompt, turn)
        if reason == "length" and turn.most < request.max_new_tokens:
            reason = "context"
        outbox.end(request.turn, reason, time.perf_counter_ns())
        if request.fresh:
            self.forget()

    def score_tokens(self, request: ScoreTokens, overtaken: Callable[[], bool]) -> TokenScores:
        """Score given output tokens by teacher forcing; the cached chat stays. Raises Refused."""
        self._set_threads(request.threads)
        with bounded("reading the prompt"):
            prompt = self._prompt(request.messages, request.prompt_tokens)
        return score_tokens(self._loaded, prompt, request, overtaken, self.chosen.rules)

    def _prompt(self, messages: list[Message], tokens: int) -> list[int]:
        prompt = encode_prompt(self._loaded, messages)
        return (prompt * -(-tokens // len(prompt)))[:tokens] if tokens else prompt

    def forget(self) -> None:
        """Drop the KV cache and free its memory."""
        self._loop.forget()

    @cached_property
    def _memory(self) -> LedgerReader:
        # Read late: kernels that repack at their first call change which tensors exist.
        return LedgerReader(self._loaded.model, self._loaded.device)

    def ledger(self) -> Ledger:
        """Return the memory ledger of this moment."""
        return self._memory.read(self._loop.kv_bytes())

    def _set_threads(self, threads: int) -> None:
        import torch

        if threads and torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
