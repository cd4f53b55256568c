"""A tiny random Llama as a GGUF file that llama.cpp loads, written with the package `gguf`."""

from __future__ import annotations

from pathlib import Path

import numpy
from gguf import GGMLQuantizationType, GGUFWriter, quantize
from gguf.constants import LlamaFileType, TokenType

LAYERS, HIDDEN, HEADS, KV_HEADS, MLP, CONTEXT = 2, 64, 2, 1, 128, 1024

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def byte_tokens() -> list[str]:
    """The 256 characters that GPT-2 writes bytes as, by byte (`bytes_to_unicode`)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in shown]
    letters = {byte: chr(byte) for byte in shown}
    letters |= {byte: chr(256 + n) for n, byte in enumerate(rest)}
    return [letters[byte] for byte in range(256)]


VOCABULARY = [*SPECIAL, *byte_tokens(), "th", "he", "Ġt"]
MERGES = ["t h", "h e", "Ġ t"]


def write_tiny(
    file: Path,
    kind: GGMLQuantizationType = GGMLQuantizationType.Q8_0,
    *,
    seed: int = 0,
    template: str = TEMPLATE,
    scale: float = 0.3,
    split: str = "gpt-2",
) -> Path:
    """Write `file`, whose matrices have the type `kind`, and return its path.

    `split`: how its tokenizer splits text before merges, by llama.cpp's name.
    """
    random = numpy.random.default_rng(seed)
    writer = GGUFWriter(file, "llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(MLP)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_vocab_size(len(VOCABULARY))
    writer.add_file_type(LlamaFileType.MOSTLY_Q8_0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split)
    writer.add_token_list(VOCABULARY)
    special = [TokenType.CONTROL] * len(SPECIAL)
    writer.add_token_types([*special, *[TokenType.NORMAL] * (len(VOCABULARY) - len(SPECIAL))])
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(False)
    if template:
        writer.add_chat_template(template)

    def add(name: str, *shape: int) -> None:
        values = (random.standard_normal(shape) * scale).astype(numpy.float32)
        if len(shape) == 1:
            writer.add_tensor(name, 1 + values / 10)
        else:
            writer.add_tensor(name, quantize(values, kind), raw_dtype=kind)

    add("token_embd.weight", len(VOCABULARY), HIDDEN)
    add("output_norm.weight", HIDDEN)
    keys = HIDDEN // HEADS * KV_HEADS
    for layer in range(LAYERS):
        stem = f"blk.{layer}"
        add(f"{stem}.attn_norm.weight", HIDDEN)
        add(f"{stem}.attn_q.weight", HIDDEN, HIDDEN)
        add(f"{stem}.attn_k.weight", keys, HIDDEN)
        add(f"{stem}.attn_v.weight", keys, HIDDEN)
        add(f"{stem}.attn_output.weight", HIDDEN, HIDDEN)
        add(f"{stem}.ffn_norm.weight", HIDDEN)
        add(f"{stem}.ffn_gate.weight", MLP, HIDDEN)
        add(f"{stem}.ffn_up.weight", MLP, HIDDEN)
        add(f"{stem}.ffn_down.weight", HIDDEN, MLP)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file
