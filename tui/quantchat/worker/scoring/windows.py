"""Cutting a text into the windows a model reads, and what of each is scored.

Where windows follow each other without overlap this is what `llama-perplexity` does (llama.cpp,
tools/perplexity/perplexity.cpp): of a window the second half is scored, so that each scored token
has at least half a window before it. Where they overlap it is the strided evaluation of
transformers' documentation ("Perplexity of fixed-length models"): each window scores what the one
before did not reach.
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
"""Characters read for each token that is wanted; a token of English has about four."""


@dataclass(frozen=True)
class Windows:
    """Windows of `window` tokens, each beginning `stride` after the one before; whole ones only."""

    window: int
    stride: int

    @property
    def context(self) -> int:
        """Tokens at a window's beginning that are only read."""
        overlap = self.window - self.stride
        return overlap if overlap > 0 else self.window // 2 + 1

    @property
    def scored(self) -> int:
        """Tokens scored in a window, each by what is said of it after the tokens before it."""
        return self.window - self.context

    def starts(self, tokens: int) -> range:
        """Where the windows of a text of so many tokens begin."""
        return range(0, tokens - self.window + 1, self.stride)


@dataclass(frozen=True)
class Tokens:
    """A text as a tokenizer has it, after the token it begins each text with, if it has one."""

    ids: list[int]
    begin: int | None
    """That token (BOS); None for a tokenizer that puts none."""

    @property
    def digest(self) -> str:
        """SHA-256 over the ids: the same text through the same tokenizer."""
        return hashlib.sha256(array("q", self.ids).tobytes()).hexdigest()

    def window(self, start: int, windows: Windows) -> list[int]:
        """The window at `start`; its first token gives way to BOS, as in llama.cpp."""
        ids = self.ids[start : start + windows.window]
        return ids if self.begin is None else [self.begin, *ids[1:]]


def read_tokens(tokenizer: Any, text: Path, most: int) -> Tokens:
    """The first `most` tokens of the file `text`; all of them with 0."""
    begin = _begin(tokenizer)
    before = [] if begin is None else [begin]
    with text.open(encoding=ENCODING, newline="") as file:
        head = file.read(most * _CHARACTERS if most else -1)
        ids = before + _encode(tokenizer, head)
        # The last token of a text that is cut short may be another one's first half.
        if len(ids) <= most and (rest := file.read()):
            ids = before + _encode(tokenizer, head + rest)
    return Tokens(ids[:most] if most else ids, begin)


def check(tokens: Tokens, windows: Windows, context_length: int) -> None:
    """Raise Refused where there is not one whole window, or the model cannot take it."""
    if windows.window > context_length:
        raise Refused(
            "context_full",
            f"a window of {windows.window} tokens, and the model takes {context_length}",
            f"--window {context_length}",
        )
    if len(tokens.ids) < windows.window:
        raise Refused(
            "unsupported",
            f"the text has {len(tokens.ids)} tokens, less than one window of {windows.window}",
            "take a longer text, more --tokens or a smaller --window",
        )


def _encode(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _begin(tokenizer: Any) -> int | None:
    """BOS, if this tokenizer puts it before a text by itself."""
    begin: int | None = tokenizer.bos_token_id
    ids = tokenizer("a")["input_ids"]
    return begin if begin is not None and ids and ids[0] == begin else None
