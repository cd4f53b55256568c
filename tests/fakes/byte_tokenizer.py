"""A tokenizer like that of Llama 2, with a token for each byte: llama.cpp's converter knows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE
from tokenizers.normalizers import Replace
from transformers import PreTrainedTokenizerFast

from fakes.tiny_llama import tiny_llama

_SPECIAL = ["<unk>", "<s>", "</s>"]
_SPACE = "\u2581"
TOKENS = [*_SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), _SPACE]


def byte_tokenizer() -> Any:
    """Return the tokenizer."""
    vocabulary = {token: number for number, token in enumerate(TOKENS)}
    backend = Tokenizer(BPE(vocabulary, [], unk_token=_SPECIAL[0], byte_fallback=True))
    backend.normalizer = Replace(" ", _SPACE)
    backend.decoder = decoders.Sequence([decoders.Replace(_SPACE, " "), decoders.ByteFallback()])
    unknown, begin, end = _SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token=unknown, bos_token=begin, eos_token=end
    )


def byte_folder(folder: Path, **config: Any) -> Path:
    """Save a tiny Llama with this tokenizer in `folder`, and return that."""
    model = tiny_llama(vocab_size=len(TOKENS), bos_token_id=1, eos_token_id=2, **config)
    model.lm_head.weight.data *= 8
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder
