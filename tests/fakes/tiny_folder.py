"""A tiny Llama in a folder, with a tokenizer that has a token for each letter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from fakes.tiny_llama import VOCABULARY, tiny_llama

LETTERS = [*map(chr, range(ord(" "), ord("~") + 1)), "\n"]
BEGIN = "<s>"


def tiny_folder(folder: Path, *, begins: bool = False, scale: float = 8.0, **config: Any) -> Path:
    """Save the model and its tokenizer in `folder`, and return that.

    `begins`: the tokenizer puts a BOS before each text. The head is scaled, since random weights
    alone say nearly the same of each token.
    """
    model = tiny_llama(**config)
    model.lm_head.weight.data *= scale
    model.save_pretrained(folder)
    tokenizer(begins=begins).save_pretrained(folder)
    return folder


def tokenizer(*, begins: bool = False) -> Any:
    """Return only the tokenizer."""
    vocabulary = {token: number for number, token in enumerate([*LETTERS, BEGIN])}
    assert len(vocabulary) == VOCABULARY
    backend = Tokenizer(WordLevel(vocabulary, unk_token=" "))
    backend.pre_tokenizer = Split(Regex("[\\s\\S]"), behavior="isolated")
    if begins:
        backend.post_processor = TemplateProcessing(
            single=f"{BEGIN} $A", special_tokens=[(BEGIN, vocabulary[BEGIN])]
        )
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=BEGIN)
