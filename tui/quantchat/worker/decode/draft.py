"""Speculative decoding: a draft proposes tokens, and the model checks several of them in one pass.

transformers' assisted generation runs both the draft and the model. This module prepares the draft
for it, and counts the drafted tokens and how many of them the model accepts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from quantchat.wire.messages import PROMPT_LOOKUP, Drafted
from quantchat.worker.decode.cache_rules import CacheRules
from quantchat.worker.decode.caches import cache_parameter, has_states
from quantchat.worker.failures import Refused
from quantchat.worker.memory import kv_cache_bytes
from quantchat.worker.model.loaded import Loaded

LOOKUP_TOKENS = 10
"""Tokens that prompt lookup drafts at once if the profile names no number."""

_LEAVE_OUT = "leave out `draft`"


@dataclass(frozen=True)
class Draft:
    """Proposes tokens for a model: with another model, or by prompt lookup."""

    model: Any | None = None
    """The model that drafts (a `torch.nn.Module` of transformers); None for prompt lookup, which
    finds an earlier occurrence of the last tokens in the chat and proposes the tokens after it."""
    tokens: int = 0
    """Most tokens to draft at once; 0: the default (`LOOKUP_TOKENS` or that of transformers)."""

    @classmethod
    def of(cls, loaded: Loaded, model: Loaded | None) -> Draft | None:
        """Return the draft that the profile names for `loaded`; None if the profile names none.

        `model` is the loaded draft model; None for prompt lookup or no draft. Raises Refused if
        neither of the vocabularies of `loaded` and `model` contains the other.
        """
        tokens = loaded.command.option("draft_tokens", 0)
        if model is None:
            lookup = loaded.command.option("draft", "") == PROMPT_LOOKUP
            return cls(None, tokens) if lookup else None
        _check_tokens(loaded, model)
        _make_ready(model.model, loaded.vocabulary_size, tokens)
        return cls(model.model, tokens)

    @property
    def settings(self) -> dict[str, int]:
        """Further arguments for the `GenerationConfig` of the model."""
        return {} if self.model else {"prompt_lookup_num_tokens": self.tokens or LOOKUP_TOKENS}

    @property
    def arguments(self) -> dict[str, Any]:
        """Further arguments for `generate`."""
        return {"assistant_model": self.model} if self.model else {}


def _check_tokens(loaded: Loaded, draft: Loaded) -> None:
    """Raise Refused unless the larger of the two vocabularies contains the smaller one."""
    one, other = (each.tokenizer.get_vocab() for each in (loaded, draft))
    smaller, larger = sorted((one, other), key=len)
    differing = next((token for token, at in smaller.items() if larger.get(token) != at), None)
    if differing is not None:
        raise Refused(
            "unsupported",
            f"the draft {draft.command.model} has another tokenizer than the model: the token"
            f" {differing!r} is {one.get(differing, 'missing')} in the model and"
            f" {other.get(differing, 'missing')} in the draft",
            f"name a smaller model of the same family, or {_LEAVE_OUT}",
        )


def _make_ready(model: Any, vocabulary: int, tokens: int) -> None:
    """Resize the draft's logits to `vocabulary` tokens, and replace its generation config."""
    from transformers import GenerationConfig

    # Models of one family pad the same vocabulary to different sizes (Qwen2.5 0.5B and 7B), and
    # transformers concludes from different sizes that the tokenizers differ.
    if model.config.get_text_config().vocab_size != vocabulary:
        model.resize_token_embeddings(vocabulary, mean_resizing=False)
    model.generation_config = GenerationConfig(num_assistant_tokens=tokens or None)


def check_cache(cache: Any, rules: CacheRules) -> None:
    """Raise Refused if rejected tokens could not be removed from `cache`, which is still empty."""
    if has_states(cache) or rules.longrope_limit or not rules.appendable:
        raise Refused(
            "unsupported",
            "a draft needs a KV cache from which rejected tokens can be removed, and this model's"
            " cannot go back",
            _LEAVE_OUT,
        )


class DraftCounter:
    """Counts the drafted tokens of one answer, from what the model is asked to check."""

    def __init__(self, prompt: int) -> None:
        """Count the tokens that follow a prompt of `prompt` tokens."""
        self._own = prompt
        """Number of tokens at the start of the model's next pass that are not drafted."""
        self._candidates: Any = None
        self.drafted = self.accepted = self.steps = 0
        self._cache: Any = None

    @contextmanager
    def watching(self, model: Any, draft: Draft) -> Iterator[None]:
        """Watch the passes of `model` and of the draft for as long as the context lasts."""
        with ExitStack() as hooks:
            hook = model.register_forward_pre_hook(self._checks, with_kwargs=True)
            hooks.callback(hook.remove)
            if draft.model is not None:
                named = cache_parameter(draft.model)

                def drafts(_module: Any, _given: Any, named_given: dict[str, Any]) -> None:
                    self._cache = named_given.get(named)

                hook = draft.model.register_forward_pre_hook(drafts, with_kwargs=True)
                hooks.callback(hook.remove)
            yield

    def _checks(self, _module: Any, _given: Any, named: dict[str, Any]) -> None:
        self._candidates = named["input_ids"][0, self._own :]
        self._own = 1

    def accept(self, tokens: list[int]) -> None:
        """Count the last pass of the model: accepted tokens, then the token that it adds itself."""
        candidates = self._candidates.tolist()
        pairs = zip(candidates, tokens, strict=False)
        self.drafted += len(candidates)
        self.accepted += len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
        self.steps += 1

    def event(self, turn: int) -> Drafted:
        """Return the counts as the event for the main process."""
        return Drafted(turn, self.drafted, self.accepted, self.steps)

    def kv_bytes(self) -> int:
        """Return the bytes of the draft's own KV cache."""
        return kv_cache_bytes(self._cache)
