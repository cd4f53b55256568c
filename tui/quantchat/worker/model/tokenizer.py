"""Load the tokenizer of a variant: the model's own, or another one that the profile names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from quantchat.common.gguf import read_header
from quantchat.wire.messages import LoadModel
from quantchat.worker.failures import Refused
from quantchat.worker.model.chat_template import check_template
from quantchat.worker.model.files_check import check_tokenizer, json_object
from quantchat.worker.model.hub import NO_WEIGHTS, fetch_named_model
from quantchat.worker.text_bounds import bounded


def load_tokenizer(command: LoadModel, **more: Any) -> Any:
    """Load the tokenizer of the model, or the one that the profile names (option `tokenizer`).

    `more` are arguments for `AutoTokenizer.from_pretrained`. Raises Refused if the named tokenizer
    has more tokens than the model's vocabulary, or if the chat template cannot be rendered.
    """
    from transformers import AutoTokenizer

    named = command.option("tokenizer", "")
    if named:
        more.pop("gguf_file", None)
    with bounded("loading the tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(
            named or command.model, trust_remote_code=command.trust_remote_code, **more
        )
    if not tokenizer.chat_template and (found := _of_the_processor(named or command.model)):
        tokenizer.chat_template = found
    known = _vocabulary(Path(command.model)) if named else 0
    if known and len(tokenizer) > known:
        raise Refused(
            "unsupported",
            f"the tokenizer named in the profile has {len(tokenizer)} tokens, more than the"
            f" model's vocabulary of {known}",
            "name the tokenizer of its base model, or remove `tokenizer` from the profile",
        )
    check_template(tokenizer, command.template_variables)
    return tokenizer


def fast_tokenizer(command: LoadModel, **more: Any) -> Any:
    """Load the tokenizer, and check that it is one of the library `tokenizers` ("fast").

    Called before the model is loaded, which may take minutes. Raises Refused as `load_tokenizer`
    does, and if the tokenizer is not a fast one.
    """
    tokenizer = load_tokenizer(command, **more)
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise Refused(
            "unsupported",
            "the model has no fast tokenizer (tokenizer.json)",
            "convert it: AutoTokenizer.from_pretrained(…).save_pretrained(…)",
        )
    return tokenizer


def fetch_named(command: LoadModel) -> LoadModel:
    """Download the tokenizer that the profile names (option `tokenizer`), if any.

    Return `command` with the tokenizer's local folder in place of its name. Raises Refused.
    """
    name = command.option("tokenizer", "")
    if not name:
        return command
    folder = Path(name)
    if not folder.is_absolute():
        code = ["*.py"] if command.trust_remote_code else []
        folder = fetch_named_model(
            name,
            "the tokenizer of",
            allow_patterns=[*NO_WEIGHTS, *code],
            ignore_patterns=["*/*"],
        )
    if not folder.is_dir():
        raise Refused(
            "bad_checkpoint",
            f"the tokenizer named in the profile was not found: {folder} is not a folder",
            "check `tokenizer` in the profile",
        )
    for file in ("tokenizer.json", "tokenizer_config.json"):
        if (folder / file).exists():
            json_object(folder / file)
    check_tokenizer(folder)
    return replace(command, options={**command.options, "tokenizer": str(folder)})


def _of_the_processor(model: str) -> str:
    """Return the chat template that vision models store in a file of its own, or an empty text."""
    file = Path(model) / "chat_template.json"
    template = json_object(file).get("chat_template") if file.is_file() else None
    return template if isinstance(template, str) else ""


def _vocabulary(folder: Path) -> int:
    """Return the vocabulary size in the config of the model in `folder`; 0 if it has none."""
    try:
        config = json_object(folder / "config.json")
    except OSError:  # a folder with only a GGUF file
        return 0
    text = config.get("text_config")
    size = (text if isinstance(text, dict) else config).get("vocab_size", 0)
    return size if isinstance(size, int) else 0


_SPLIT_LIKE_GPT2 = (
    *("a.x-4.0", "default", "gigachat", "gpt-2", "granite-docling", "jais", "jina-de", "jina-es"),
    *("jina-v2-de", "jina-v2-es", "mellum", "modern-bert", "mpt", "olmo", "phi-2", "trillion"),
)
"""Values of `tokenizer.ggml.pre` with which llama.cpp splits text as GPT-2 does (llama-vocab.cpp),
and `default`, which says nothing about the model."""


def other_split(gguf: Path) -> str:
    """Return a note if transformers splits text otherwise than the file `gguf` says, else "".

    For a byte-level tokenizer that it does not know, transformers 5.24 splits text as GPT-2 does,
    before merges are applied. With SmolLM2, whose digits are tokens of their own, texts with
    numbers then have other tokens than with the model's own tokenizer and with llama.cpp.
    """
    try:
        from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS
    except ImportError:
        return ""  # another release of transformers: unknown
    metadata = read_header(gguf).metadata
    split = str(metadata.get("tokenizer.ggml.pre", "default"))
    if metadata.get("tokenizer.ggml.model") != "gpt2" or split in _SPLIT_LIKE_GPT2:
        return ""
    if split in GGUF_PRE_TOKENIZER_SPLITS:
        return ""
    return (
        f"transformers does not know how this file's tokenizer splits text ({split}), and splits it"
        " as GPT-2 does: some texts, such as numbers, get other tokens than in llama.cpp"
    )
