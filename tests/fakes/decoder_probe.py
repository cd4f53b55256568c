"""A decoder of a tiny model, compared with one uncached pass of the model's own forward.

`Probe` sends what a chat sends: a first, a second, an edited and a long turn (longer than a piece
of the prompt and than a sliding window), one that continues after a stop, and teacher forcing.
Prompts are token ids, written as numbers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch

from quantchat.wire.messages import Generate, LoadModel, Message, Sampling, ScoreTokens, Started
from quantchat.worker.decode.decoder import Decoder
from quantchat.worker.model.loaded import Loaded

ROUNDING = 1e-3
"""Relative error of logits, in the Euclidean norm, that float32's rounding may make."""

REFERENCE = "reference"
"""The check of the uncached pass itself: where it is off, no other check says anything."""


class Numbers:
    """Replaces a tokenizer: decimal numbers are token ids; other text has one token a letter."""

    eos_token_id = None
    chat_template = None

    def __init__(self, vocabulary: int) -> None:
        self.vocabulary = vocabulary

    @property
    def backend_tokenizer(self) -> Numbers:
        """Itself."""
        return self

    def encode(self, text: str) -> Any:
        """Return the ids of `text`, without special tokens."""
        words = text.split()
        if all(word.isdigit() for word in words):
            return SimpleNamespace(ids=[int(word) for word in words])
        return SimpleNamespace(ids=[3 + ord(letter) % (self.vocabulary - 3) for letter in text])

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Return `ids` as decimal numbers."""
        return " ".join(map(str, ids))


def tiny_loaded(model: Any) -> Loaded:
    """Return `model` as an engine's loader would return it."""
    command = LoadModel("transformers", "", {}, dtype="float32", device="cpu")
    vocabulary = model.config.get_text_config().vocab_size
    return Loaded(command, model, Numbers(vocabulary), kernel="Linear float32")


class Probe:
    """Sends requests to a decoder of `model` in `mode`. Raises what building the decoder raises."""

    def __init__(self, model: Any, mode: str, long: int = 700) -> None:
        self._model = model
        self._random = random.Random(1)
        self._vocabulary = model.config.get_text_config().vocab_size
        self._long = long
        self.decoder = Decoder(tiny_loaded(model), mode, lambda stage: None)
        self.cached = 0
        """Tokens of the last prompt that were taken from the cache."""
        self._rows: list[Any] = []
        head = model.get_output_embeddings()
        if head is not None:
            head.register_forward_hook(lambda m, given, out: self._rows.append(out[0].float()))
        self._first = self.some(60)
        self._said: list[int] = []
        self._longest = self.some(long)

    @property
    def checks(self) -> dict[str, Callable[[], float]]:
        """Each returns the greatest relative error it found; in this order, one after the other."""
        return {
            REFERENCE: self.reference,
            "first": self.first,
            "second": self.second,
            "edited": self.edited,
            "long": self.long,
            "long, second": self.long_second,
            "long, edited": self.long_edited,
            "stopped": self.stopped,
            "stopped in the prompt": self.stopped_in_the_prompt,
            "teacher forcing": self.teacher_forcing,
        }

    def reference(self) -> float:
        """How far an uncached pass is off one over more tokens: by more than rounding where a model
        has no exact answer, as one that picks among equal scores."""
        worst = 0.0
        for ids in (self._first, self._longest):
            longer, less = self.uncached(ids, len(ids))[:-8], len(ids) - 8
            shorter = self.uncached(ids[:less], less)
            errors = (shorter - longer).norm(dim=-1) / longer.norm(dim=-1)
            worst = max(worst, float(errors.max()))
        return worst

    # ------------------------------------------------------------ what is asked

    def first(self) -> float:
        """The first turn of a chat."""
        self._said = self.ask(self._first)
        return self.error(self._first, self._said)

    def second(self) -> float:
        """Its second turn."""
        return self._turn([*self._first, *self._said, *self.some(20)])

    def edited(self) -> float:
        """Another second turn, from the middle of the first prompt on."""
        return self._turn([*self._first[:40], *self.some(25)])

    def long(self) -> float:
        """A prompt of several pieces."""
        self._said = self.ask(self._longest)
        return self.error(self._longest, self._said)

    def long_second(self) -> float:
        """The turn after the long one."""
        return self._turn([*self._longest, *self._said, *self.some(30)])

    def long_edited(self) -> float:
        """The long prompt with another end."""
        return self._turn([*self._longest[: self._long // 2], *self.some(100)])

    def stopped(self) -> float:
        """What goes on after an answer that was stopped."""
        prompt = self.some(80)
        said = self.ask(prompt, stop=lambda asked, said: said >= 5)
        return self._turn([*prompt, *said, *self.some(15)])

    def stopped_in_the_prompt(self) -> float:
        """A long prompt that was stopped in the middle, asked again."""
        self.ask(self._longest, stop=lambda asked, said: asked >= 7)
        return self._turn(self._longest)

    def teacher_forcing(self) -> float:
        """Teacher forcing over a short and a long prompt; greatest error of a log-probability."""
        worst = 0.0
        for prompt in (self._first, self._longest):
            ids = self.some(80)
            request = ScoreTokens(0, [_message(prompt)], ids)
            found = self.decoder.score_tokens(request, lambda: False).logprobs
            right = self.uncached([*prompt, *ids[:-1]], len(ids)).log_softmax(dim=-1)
            expected = right[torch.arange(len(ids)), torch.tensor(ids)]
            worst = max(worst, float((torch.tensor(found) - expected).abs().max()))
        return worst

    def _turn(self, prompt: list[int]) -> float:
        return self.error(prompt, self.ask(prompt, 12))

    # ------------------------------------------------------------ asking and comparing

    def some(self, count: int) -> list[int]:
        """Tokens, always the same ones."""
        return [self._random.randrange(3, self._vocabulary) for _ in range(count)]

    def ask(
        self, prompt: list[int], most: int = 24, stop: Callable[[int, int], bool] | None = None
    ) -> list[int]:
        """What it says to `prompt`; `stop` is given how often it was asked, and the tokens said."""
        heard = _Heard()

        def stopped(_turn: int) -> bool:
            heard.asked += 1
            return bool(stop and stop(heard.asked, len(heard.ids)))

        self._rows.clear()
        request = Generate(0, [_message(prompt)], Sampling(), most, ignore_eos=True)
        self.decoder.answer(request, 0, heard, stopped)  # type: ignore[arg-type]
        self.cached = heard.cached
        return heard.ids

    def error(self, prompt: list[int], said: list[int]) -> float:
        """How far what was chosen from is off an uncached pass, relative to that.

        Where the loop computes the head by itself, only the choice is seen: then it is by how much
        a token was preferred to the right one.
        """
        seen = [rows[-1] for rows in self._rows[-len(said) :]]
        right = self.uncached([*prompt, *said[:-1]], len(said))
        chosen = right[torch.arange(len(said)), torch.tensor(said)]
        worst = float(((right.amax(dim=-1) - chosen) / right.norm(dim=-1)).max())
        if len(seen) == len(said):
            # The head's own rows: some models cap the logits after it.
            for row, expected in zip(seen, self._rows[-1][-len(said) :], strict=True):
                worst = max(worst, float((row - expected).norm() / expected.norm()))
        return worst if worst == worst else float("inf")

    def uncached(self, ids: list[int], last: int) -> Any:
        """Return logits of the last positions, (last, vocabulary), of one pass without a cache."""
        with torch.inference_mode():
            return self._model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -last:]


def _message(ids: Sequence[int]) -> Message:
    return Message("user", " ".join(map(str, ids)))


class _Heard:
    """Collects an answer, in place of the outbox."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.cached = 0
        self.asked = 0

    def send(self, event: Any) -> None:
        if isinstance(event, Started):
            self.cached = event.cached_tokens

    def begin(self, _turn: int, _prompt: object = (), _stop: object = ()) -> None:
        pass

    def token(self, token: int, _time_ns: int) -> None:
        self.ids.append(token)

    def end(self, *_: Any) -> None:
        pass
