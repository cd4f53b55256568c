"""Texts that models are scored on: quantchat's own, WikiText-2 from the hub, or any file."""

from __future__ import annotations

import codecs
import hashlib
import importlib.resources
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

from quantchat import paths
from quantchat.errors import UserError
from quantchat.files import write_whole
from quantchat.text import one_line

OWN = "own"
"""Prose, code and dialogue written for quantchat: over 8192 tokens with SmolLM2's tokenizer."""

WIKITEXT = "wikitext-2"
"""The test split of WikiText-2 (Merity et al. 2016) in raw form: rare words are not replaced."""

DATASETS = (OWN, WIKITEXT)

# The same archive that llama.cpp's scripts/get-wikitext-2.sh fetches, so that perplexities can be
# compared with those of llama.cpp.
_WIKITEXT_HOME = "ggml-org/ci"
_WIKITEXT_ARCHIVE = "wikitext-2-raw-v1.zip"
_WIKITEXT_MEMBER = "wikitext-2-raw/wiki.test.raw"

_BLOCK = 2**20


@dataclass(frozen=True)
class Corpus:
    """A text to score models on."""

    name: str
    """Name of the dataset or of the file."""
    path: Path
    sha256: str


def dataset(name: str) -> Corpus:
    """Return the text called `name`, one of `DATASETS`. Raises UserError if it is not available."""
    if name == OWN:
        path = Path(str(importlib.resources.files(__name__) / "own.txt"))
    elif name == WIKITEXT:
        path = _wikitext()
    else:
        raise UserError("no such dataset", where=one_line(name), hint=f"one of {_listed()}")
    return Corpus(name, path, _digest(path))


def text_file(path: Path) -> Corpus:
    """Return the text in a file of the user. Raises UserError if it cannot be read as UTF-8."""
    return Corpus(path.name, path.absolute(), _digest(path))


def _listed() -> str:
    return ", ".join(DATASETS)


def _digest(path: Path) -> str:
    """Return the SHA-256 of a file. Raises UserError if it is no file, empty, or not UTF-8."""
    digest, decoder = hashlib.sha256(), codecs.getincrementaldecoder("utf-8-sig")()
    found = False
    try:
        if not path.is_file():  # opening a FIFO would wait for its writer
            raise UserError(_no_file(path), where=one_line(str(path)))
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
                found |= bool(decoder.decode(block).strip())
            decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise UserError(
            "is no UTF-8 text", where=one_line(str(path)), hint="convert it, as with iconv"
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(f"cannot be read: {why}", where=one_line(str(path))) from error
    if not found:
        raise UserError("holds no text", where=one_line(str(path)))
    return digest.hexdigest()


def _no_file(path: Path) -> str:
    if path.is_dir():
        return "is a folder, and a text is a file"
    return "is no regular file" if path.exists() else "no such file"


def _wikitext() -> Path:
    """Return the path of WikiText-2, fetched from the hub once and cached."""
    kept = paths.cache_dir() / "texts" / Path(_WIKITEXT_MEMBER).name
    if kept.is_file():
        return kept
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from huggingface_hub import hf_hub_download

    try:
        archive = hf_hub_download(_WIKITEXT_HOME, _WIKITEXT_ARCHIVE, repo_type="dataset")
        with zipfile.ZipFile(archive) as opened:
            body = opened.read(_WIKITEXT_MEMBER)
        paths.private(kept.parent)
        return write_whole(kept, body)
    except Exception as error:  # huggingface_hub and its network stack raise errors of many types
        raise UserError(
            f"cannot be fetched from the hub: {one_line(str(error))[:200]}",
            where=WIKITEXT,
            hint=f"check the network, take --dataset {OWN}, or a file with --text",
        ) from error
