"""Splits a text into the windows that a model reads, and chooses which tokens of each are scored.

If the windows do not overlap, this is the method of `llama-perplexity` (llama.cpp,
tools/perplexity/perplexity.cpp): the second half of each window is scored, so that each scored
token has at least half a window before it. If the windows overlap, it is the strided evaluation of
transformers' documentation ("Perplexity of fixed-length models"): in each window, the tokens are
scored that the previous window did not contain.
"""

from __future__ import annotations

import hashlib
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantchat.common.input_files import ENCODING
from quantchat.worker.failures import Refused

_CHARACTERS = 16
"""Characters of the text to read for each required token. English has about four per token."""


@dataclass(frozen=True)
class Windows:
    """Windows of `window` tokens, whose starts are `stride` tokens apart."""

    window: int
    stride: int

    @property
    def context(self) -> int:
        """Number of tokens at the start of a window that are read but not scored."""
        overlap = self.window - self.stride
        return overlap if overlap > 0 else self.window // 2 + 1

    @property
    def early(self) -> int:
        """Number of unscored tokens in a window that can be compared for the KLD by depth.

        The KLD by depth is the KLD as a function of the number of tokens before a token in its
        window. The value is 0 if the windows overlap, because then another window scores these
        tokens.
        """
        return self.context - 1 if self.stride >= self.window else 0

    @property
    def scored(self) -> int:
        """Number of tokens at the end of a window that are scored."""
        return self.window - self.context

    def starts(self, tokens: int) -> range:
        """Return the indices at which the windows of a text of `tokens` tokens begin."""
        return range(0, tokens - self.window + 1, self.stride)


@dataclass(frozen=True)
class Tokens:
    """A text as token ids, with the BOS token at the start if the tokenizer adds it."""

    ids: list[int]
    begin: int | None
    """Id of the BOS token; None if the tokenizer adds none."""

    @property
    def digest(self) -> str:
        """SHA-256 over the ids: equal for the same text and tokenizer."""
        return hashlib.sha256(array("q", self.ids).tobytes()).hexdigest()

    def window(self, start: int, windows: Windows) -> list[int]:
        """Return the token ids of the window that begins at the index `start`.

        The BOS token, if there is one, replaces the first token of the window, as in llama.cpp.
        """
        ids = self.ids[start : start + windows.window]
        return ids if self.begin is None else [self.begin, *ids[1:]]


def read_tokens(tokenizer: Any, text: Path, most: int) -> Tokens:
    """Return the first `most` tokens of the file `text`, or all of them if `most` is 0."""
    begin = _begin(tokenizer)
    before = [] if begin is None else [begin]
    with text.open(encoding=ENCODING, newline="") as file:
        head = file.read(most * _CHARACTERS if most else -1)
        ids = before + _encode(tokenizer, head)
        # If all tokens of the part are needed, encode the whole text: the last token of the part
        # may be only the beginning of a longer token of the text.
        if len(ids) <= most and (rest := file.read()):
            ids = before + _encode(tokenizer, head + rest)
    return Tokens(ids[:most] if most else ids, begin)


def check(tokens: Tokens, windows: Windows, context_length: int) -> None:
    """Raise Refused if there is no full window, or the model's context is shorter than a window."""
    if windows.window > context_length:
        raise Refused(
            "context_full",
            f"a window has {windows.window} tokens, but the model takes {context_length}",
            f"use --window {context_length}",
        )
    if len(tokens.ids) < windows.window:
        raise Refused(
            "unsupported",
            f"the text has {len(tokens.ids)} tokens, less than one window of {windows.window}",
            "use a longer text, more --tokens or a smaller --window",
        )


def _encode(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _begin(tokenizer: Any) -> int | None:
    """Return the id of the BOS token if this tokenizer puts it before a text; otherwise None."""
    begin: int | None = tokenizer.bos_token_id
    ids = tokenizer("a")["input_ids"]
    return begin if begin is not None and ids and ids[0] == begin else None
