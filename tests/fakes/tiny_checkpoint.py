"""A complete model folder that loads in a second: a tiny Llama in two shards, with a tokenizer."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from fakes.tiny_llama import VOCABULARY, tiny_llama


def write_checkpoint(folder: Path) -> Path:
    """Write the checkpoint into `folder`, in float32: config, two shards with index, tokenizer."""
    tiny_llama().save_pretrained(folder, max_shard_size="150KB")
    words = {f"w{index}": index for index in range(VOCABULARY - 2)}
    words |= {"<unk>": VOCABULARY - 2, "</s>": VOCABULARY - 1}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", eos_token="</s>"
    )
    tokenizer.save_pretrained(folder)
    return folder
