"""End a model's thoughts after a number of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from quantchat.worker.thoughts import Marks, OutputText


class PieceStream(Protocol):
    """Decodes the tokens of one answer."""

    def step(self, token: int) -> str:
        """Return the text that `token` completes, often "". Raises what the tokenizer raises."""


class ThinkingLimit:
    """Says which tokens to insert when the thoughts in one output have `most` tokens.

    These tokens are the mark that ends the thoughts, after which the model goes on to its answer.
    `tokenizer` is a `tokenizers.Tokenizer`, `pieces` decodes the output, which follows the tokens
    of `prompt`. Thoughts and marks are counted as in `OutputText`.
    """

    def __init__(
        self, tokenizer: Any, marks: Marks, pieces: PieceStream, prompt: Sequence[int], most: int
    ) -> None:
        self._tokenizer = tokenizer
        self._pieces = pieces
        self._output = OutputText(marks, prompt)
        self._most = most
        self._answered = False
        """Whether text of the answer has come, so that the thoughts are over and no longer
        counted."""
        self._inserted: list[int] = []
        """Tokens that are yet to be inserted."""

    def heard(self, token: int) -> None:
        """Note that the output continues with `token`."""
        if self._answered:
            return
        if self._inserted:
            del self._inserted[0]
        said, _ = self._output.add(token, self._pieces.step(token))
        self._answered = bool(said)
        over = self._output.thought_tokens >= self._most
        if over and not self._inserted and (closing := self._output.closing):
            ids = self._tokenizer.encode(closing, add_special_tokens=False).ids
            self._inserted = list(ids)

    @property
    def next_token(self) -> int | None:
        """Return the token with which the output must continue; None if the model chooses."""
        return self._inserted[0] if self._inserted else None
