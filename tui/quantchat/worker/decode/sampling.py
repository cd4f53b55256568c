"""Choose the next token with transformers' logits processors."""

from __future__ import annotations

from typing import Any

from quantchat.wire.messages import Sampling


class OutputPenalties:
    """Lowers the logits of tokens that are already in the answer, as OpenAI's API defines.

    https://platform.openai.com/docs/api-reference/chat/create (presence_penalty). It is a logits
    processor of transformers; the answer begins after `prompt` tokens.
    """

    def __init__(self, presence: float, frequency: float, prompt: int) -> None:
        self._presence = presence
        self._frequency = frequency
        self._prompt = prompt

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Return the penalized `scores` of the next token, shape (rows, vocabulary).

        `input_ids` are the tokens of prompt and answer so far, shape (rows, tokens).
        """
        import torch

        answer = input_ids[:, self._prompt :]
        counts = torch.zeros_like(scores)
        counts.scatter_add_(1, answer, torch.ones_like(answer, dtype=scores.dtype))
        return scores - self._frequency * counts - self._presence * (counts > 0)


def penalties(sampling: Sampling, prompt: int) -> list[OutputPenalties]:
    """Return the processors for presence and frequency penalty, none if both penalties are 0.

    `prompt` is the number of prompt tokens.
    """
    presence, frequency = sampling.presence_penalty, sampling.frequency_penalty
    return [OutputPenalties(presence, frequency, prompt)] if presence or frequency else []


def biases(sampling: Sampling) -> list[list[Any]]:
    """Return the logit bias in transformers' form: pairs of a list of token ids and a bias."""
    return [[[int(token)], bias] for token, bias in sampling.logit_bias.items()]


class Sampler:
    """Chooses the tokens of one answer. It is seeded: the same logits give the same tokens.

    The processors and their order are those of `transformers.GenerationMixin`: logit bias,
    repetition penalty (over prompt and answer), presence and frequency penalty (over the answer),
    temperature, top-k, top-p, min-p. Temperature 0 takes the likeliest token.
    """

    def __init__(self, sampling: Sampling, device: Any, prompt_ids: list[int]) -> None:
        import torch
        from transformers import (
            LogitsProcessorList,
            MinPLogitsWarper,
            RepetitionPenaltyLogitsProcessor,
            SequenceBiasLogitsProcessor,
            TemperatureLogitsWarper,
            TopKLogitsWarper,
            TopPLogitsWarper,
        )

        self._greedy = sampling.temperature == 0
        self._processors = LogitsProcessorList()
        if sampling.logit_bias:
            self._processors.append(SequenceBiasLogitsProcessor(biases(sampling)))
        if sampling.repetition_penalty != 1.0:
            self._processors.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
        self._processors += penalties(sampling, len(prompt_ids))
        if not self._greedy:
            if sampling.temperature != 1.0:
                self._processors.append(TemperatureLogitsWarper(sampling.temperature))
            if sampling.top_k:
                self._processors.append(TopKLogitsWarper(sampling.top_k))
            if sampling.top_p < 1.0:
                self._processors.append(TopPLogitsWarper(sampling.top_p))
            if sampling.min_p:
                self._processors.append(MinPLogitsWarper(sampling.min_p))
            self._generator = torch.Generator(device=device).manual_seed(sampling.seed)
        # Only the penalties need earlier tokens.
        self._needs_history = sampling.repetition_penalty != 1.0 or bool(
            sampling.presence_penalty or sampling.frequency_penalty
        )
        self._seen = torch.tensor([prompt_ids if self._needs_history else []], device=device)

    def choose(self, logits: Any) -> Any:
        """Return the next token's id, shape (1, 1), for `logits` of shape (1, vocabulary)."""
        import torch

        if self._processors:
            # Use float32 as `generate` does, because softmax and sums are too coarse in bf16.
            logits = self._processors(self._seen, logits.float())
        if self._greedy:
            # On a CPU, argmax takes three times as long in bfloat16 as in float32.
            rows = logits.float() if logits.device.type == "cpu" else logits
            token = rows.argmax(dim=-1, keepdim=True)
        else:
            probabilities = torch.softmax(logits.float(), dim=-1)
            # Like torch.multinomial for one draw (ATen/native/Distributions.cpp), but without its
            # checks, which would make the host wait for the device.
            exponentials = torch.empty_like(probabilities).exponential_(
                1, generator=self._generator
            )
            token = (probabilities / exponentials).argmax(dim=-1, keepdim=True)
        if self._needs_history:
            self._seen = torch.cat([self._seen, token], dim=-1)
        return token

    def replace(self, token_id: int) -> Any:
        """Use `token_id` instead of the token chosen last; return it with shape (1, 1)."""
        import torch

        token = torch.tensor([[token_id]], device=self._seen.device)
        if self._needs_history:
            self._seen[:, -1:] = token
        return token
