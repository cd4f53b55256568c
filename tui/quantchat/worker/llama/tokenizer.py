"""The tokenizer of a GGUF file, with those methods of transformers' tokenizers that are called."""

from __future__ import annotations

import codecs
import ctypes
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import llama_cpp as c

_UNUSED, _CONTROL, _ADDED = 1 << 1, 1 << 3, 1 << 4
"""Flags in the attributes of a token (`llama_token_attr`): unused (the token only pads the
vocabulary), special (a control token), added (`LLAMA_TOKEN_ATTR_USER_DEFINED`)."""
_SENTENCEPIECE = 1
"""`LLAMA_VOCAB_TYPE_SPM`, a SentencePiece vocabulary: llama.cpp decodes the first token of a text
with a leading space that the text does not have."""


@dataclass(frozen=True)
class Encoding:
    """The result of `encode`, like `tokenizers.Encoding`."""

    ids: list[int]


@dataclass(frozen=True)
class AddedToken:
    """A token that was added to the vocabulary, such as `<|im_end|>`."""

    content: str
    special: bool
    """Whether the token is left out of decoded text."""


class LlamaTokenizer:
    """Encodes and decodes text with the vocabulary of a model that llama.cpp has loaded.

    `template` is the chat template in the file; empty if it has none.
    """

    def __init__(self, vocabulary: Any, template: str) -> None:
        self._vocab = vocabulary
        self.chat_template = template or None
        self.size = int(c.llama_vocab_n_tokens(vocabulary))
        bos, eos = c.llama_vocab_bos(vocabulary), c.llama_vocab_eos(vocabulary)
        self.bos_token_id = bos if bos >= 0 else None
        self.eos_token_id = eos if eos >= 0 else None
        self._strips_first_space = c.llama_vocab_type(vocabulary) == _SENTENCEPIECE

    def __len__(self) -> int:
        return self.size

    # ------------------------------------------------------------ as in `tokenizers`

    def encode(self, text: str, *, add_special_tokens: bool = True) -> Encoding:
        """Return the ids of `text`; special tokens in `text`, such as `<s>`, become single ids.

        `add_special_tokens` adds the tokens that the model expects before and after a text.
        """
        # A lone surrogate, which JSON can contain, cannot be encoded.
        body = text.encode(errors="replace")
        count = len(body) + 8
        while True:
            ids = (c.llama_token * count)()
            found = c.llama_tokenize(
                self._vocab, body, len(body), ids, count, add_special_tokens, True
            )
            if found >= 0:
                return Encoding(list(ids[:found]))
            count = -found

    def decode(self, ids: int | Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Return the text of `ids`; bytes that are not UTF-8 become U+FFFD."""
        listed = [ids] if isinstance(ids, int) else ids
        special = not skip_special_tokens
        pieces = [self._piece(i, special, first=n == 0) for n, i in enumerate(listed)]
        return b"".join(pieces).decode(errors="replace")

    def pieces(self) -> Pieces:
        """Return a decoder that takes one token at a time, and leaves out special tokens."""
        return Pieces(self)

    def get_added_tokens_decoder(self) -> dict[int, AddedToken]:
        """Return the special and the added tokens by id."""
        return {
            token: AddedToken(self._text(token), bool(attributes & _CONTROL))
            for token, attributes in self._attributes()
            if attributes & (_CONTROL | _ADDED)
        }

    # ------------------------------------------------------------ as in `transformers`

    def __call__(
        self, text: str, *, add_special_tokens: bool = True, verbose: bool = True
    ) -> dict[str, list[int]]:
        """Return a dict with the token ids of `text` as `input_ids`; `verbose` has no effect."""
        del verbose
        return {"input_ids": self.encode(text, add_special_tokens=add_special_tokens).ids}

    def get_vocab(self) -> dict[str, int]:
        """Return the ids of all tokens except those that only pad the vocabulary."""
        return {
            self._text(token): token
            for token, attributes in self._attributes()
            if not attributes & _UNUSED
        }

    def apply_chat_template(
        self,
        conversation: list[Mapping[str, Any]],
        *,
        tokenize: bool = False,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> str:
        """Return the messages, rendered with the chat template, as text.

        `variables` are variables of the template. Raises jinja2.TemplateError.
        """
        from jinja2 import TemplateError

        del tokenize
        self._formatter.add_generation_prompt = add_generation_prompt
        try:
            return str(self._formatter(messages=conversation, **variables).prompt)
        except ValueError as error:  # from the template's `raise_exception`
            raise TemplateError(str(error)) from error

    @cached_property
    def _formatter(self) -> Any:
        # This renders the template as transformers does: sandboxed, with the same filters and
        # extensions.
        from llama_cpp.llama_chat_format import Jinja2ChatFormatter

        ends = [
            "" if token is None else self._text(token)
            for token in (self.eos_token_id, self.bos_token_id)
        ]
        return Jinja2ChatFormatter(self.chat_template, *ends)

    # ------------------------------------------------------------ llama.cpp

    @cached_property
    def end_tokens(self) -> frozenset[int]:
        """Ids of the tokens that end an answer: end of text, end of turn or end of message."""
        return frozenset(i for i in range(self.size) if c.llama_vocab_is_eog(self._vocab, i))

    def _attributes(self) -> Iterator[tuple[int, int]]:
        return ((i, c.llama_vocab_get_attr(self._vocab, i)) for i in range(self.size))

    def _text(self, token: int) -> str:
        return str(c.llama_vocab_get_text(self._vocab, token).decode(errors="replace"))

    def _piece(self, token: int, special: bool, *, first: bool) -> bytes:
        if not 0 <= token < self.size:
            raise OverflowError(f"the vocabulary of {self.size} tokens has no token {token}")
        size = 64
        strip = int(first and self._strips_first_space)
        while True:
            buffer = ctypes.create_string_buffer(size)
            found = c.llama_token_to_piece(self._vocab, token, buffer, size, strip, special)
            if found >= 0:
                return buffer.raw[:found]
            size = -found


class Pieces:
    """Decodes token ids one by one; the results, joined, are the text of all tokens."""

    def __init__(self, tokenizer: LlamaTokenizer) -> None:
        self._tokenizer = tokenizer
        self._first = True
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def step(self, token: int) -> str:
        """Return the text that `token` completes.

        It is "" if `token` ends within the UTF-8 bytes of a character, and for a special token.
        """
        piece = self._tokenizer._piece(token, special=False, first=self._first)
        self._first = False
        return self._utf8.decode(piece)
