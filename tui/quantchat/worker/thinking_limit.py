"""End a model's thoughts after a given number of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from quantchat.worker.thoughts import Marks, OutputText


class PieceStream(Protocol):
    """Decodes the tokens of one answer."""

    def step(self, token: int) -> str:
        """Return the text that `token` completes, "" if it completes no character.

        Exceptions of the tokenizer are not caught.
        """


class ThinkingLimit:
    """Says which tokens to insert when the thoughts of an output have reached `most` tokens.

    These tokens are the mark that ends thoughts, such as `</think>`; after it the model writes its
    answer. `tokenizer` is a `tokenizers.Tokenizer`; `pieces` decodes the output, which follows the
    tokens of `prompt`. Tokens are counted as in `OutputText.thought_tokens`.
    """

    def __init__(
        self, tokenizer: Any, marks: Marks, pieces: PieceStream, prompt: Sequence[int], most: int
    ) -> None:
        self._tokenizer = tokenizer
        self._pieces = pieces
        self._output = OutputText(marks, prompt)
        self._most = most
        self._answered = False
        """Whether the answer has begun, so that the thoughts are over."""
        self._to_insert: list[int] = []
        """Tokens that still have to be inserted."""

    def add(self, token: int) -> None:
        """Take in `token`, the next token of the output, whether the model chose it or not."""
        if self._answered:
            return
        if self._to_insert:
            del self._to_insert[0]
        answer, _ = self._output.add(token, self._pieces.step(token))
        self._answered = bool(answer)
        over = self._output.thought_tokens >= self._most
        if over and not self._to_insert and (closing := self._output.closing):
            ids = self._tokenizer.encode(closing, add_special_tokens=False).ids
            self._to_insert = list(ids)

    @property
    def next_token(self) -> int | None:
        """The token to insert next; None if the model chooses the next token."""
        return self._to_insert[0] if self._to_insert else None
