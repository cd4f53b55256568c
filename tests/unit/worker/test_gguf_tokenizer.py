"""A GGUF file whose tokenizer transformers does not know splits text otherwise, and is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from fakes.tiny_gguf import write_tiny
from quantchat.wire.messages import LoadModel
from quantchat.worker import loaders
from quantchat.worker.model.tokenizer import other_split


@pytest.mark.parametrize(
    ("split", "noted"), [("smollm", True), ("gpt-2", False), ("llama-bpe", False), ("olmo", False)]
)
def test_a_split_that_transformers_does_not_know(tmp_path: Path, split: str, noted: bool) -> None:
    file = write_tiny(tmp_path / "m.gguf", split=split)
    assert (split in other_split(file)) is noted


def test_it_stands_in_the_note_of_the_variant(tmp_path: Path) -> None:
    write_tiny(tmp_path / "m.gguf", split="smollm")
    options = {"gguf_file": "m.gguf"}
    command = LoadModel("transformers", str(tmp_path), options, device="cpu")
    loaded = loaders.load(command, lambda stage: None)
    assert "dequantized" in f"{loaded.kernel} {loaded.note}"
    assert "(smollm)" in loaded.note


def test_transformers_splits_it_as_gpt_2_does(tmp_path: Path) -> None:
    """The note is true: remove it when this fails."""
    pieces = []
    for split in ("smollm", "gpt-2"):
        folder = tmp_path / split
        folder.mkdir()
        write_tiny(folder / "m.gguf", split=split)
        tokenizer = AutoTokenizer.from_pretrained(str(folder), gguf_file="m.gguf")
        pre_tokenizer = tokenizer.backend_tokenizer.pre_tokenizer
        pieces.append([piece for piece, _ in pre_tokenizer.pre_tokenize_str("in 2024\n\n1")])
    assert pieces[0] == pieces[1]
    assert "Ġ2024" in pieces[0]  # SmolLM2 itself has a token for each digit
