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
    """Load the tokenizer that the option `tokenizer` names, or else the model's own tokenizer.

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
    """Load the tokenizer as `load_tokenizer` does, and check that it is a fast tokenizer.

    A fast tokenizer uses the library `tokenizers`. Call this before the model is loaded: loading
    may take minutes, and a problem should be reported at once. Raises Refused as `load_tokenizer`
    does, and if the tokenizer is not fast.
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
    """Download the tokenizer that the option `tokenizer` of `command` names, if any.

    Return `command` with the tokenizer's local folder in place of its name. Raises Refused if the
    tokenizer is not found, cannot be downloaded, or is damaged.
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
    """Return the chat template in chat_template.json, where vision models store it, else "".

    `model` is the folder of the model. The file belongs to the model's processor, which prepares
    text and images.
    """
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
"""Values of `tokenizer.ggml.pre` in GGUF metadata, which names the rule by which a tokenizer splits
text into words before it applies its merges. With these values llama.cpp splits text as GPT-2 does
(llama-vocab.cpp); `default` says nothing about the model."""


def other_split(gguf: Path) -> str:
    """Return a note if transformers splits text in another way than the file `gguf` says, else "".

    transformers 5.24 splits text as GPT-2 does if it does not know the rule of a byte-level
    tokenizer. SmolLM2, for example, makes each digit a token. In transformers, a text with numbers
    then has other tokens than with the model's own tokenizer or in llama.cpp.
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
