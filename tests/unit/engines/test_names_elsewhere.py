"""Only an engine's declaration and loader contain its name; other code asks the registry."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import quantchat
from quantchat.engines.registry import engines

PACKAGE = Path(quantchat.__file__).parent
ALLOWED_FOLDERS = ("engines", "worker/loaders")

_VERSIONS = "the library transformers, whose version is recorded"
_FORMAT = "a value of `quant_method` in a checkpoint's files"
_PACKAGE = "the package gguf, with which transformers reads GGUF files"
_HIDDEN = "a package that other libraries import without need"
ALLOWED = {
    ("checkpoints/autoround_stage.py", "transformers"): _VERSIONS,
    ("checkpoints/bitsandbytes_stage.py", "transformers"): _VERSIONS,
    ("checkpoints/calibration_stages.py", "transformers"): _VERSIONS,
    ("checkpoints/gptq_stage.py", "transformers"): _VERSIONS,
    ("checkpoints/merge_stage.py", "transformers"): _VERSIONS,
    ("common/kv_cache.py", "hqq"): "the package hqq, with which transformers packs KV caches",
    ("common/model_folder.py", "gguf"): _PACKAGE,
    ("features/doctor/system_info.py", "gguf"): _PACKAGE,
    **{
        ("common/model_folder.py", name): _FORMAT
        for name in ("awq", "bitsandbytes", "gptq", "hqq", "torchao")
    },
    ("worker/import_pruning.py", "hqq"): _HIDDEN,
    ("worker/import_pruning.py", "torchao"): _HIDDEN,
    ("worker/jobs/quantize_autoround.py", "autoround"): "the name of auto-round's logger",
    ("worker/model/files_check.py", "bitsandbytes"): _FORMAT,
    ("worker/model/loaded.py", "transformers"): _VERSIONS,
}
"""File and string, with the reason why it is no engine's name there."""


def named(file: Path) -> Iterator[str]:
    """Yield the engines that the strings of `file` name: alone, or as `engine = "…"`."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from {node.value} & engines().keys()
            yield from re.findall(r'engine = "([\w-]+)"', node.value)


def test_no_other_file_names_an_engine() -> None:
    found = {
        (name, engine)
        for file in sorted(PACKAGE.rglob("*.py"))
        if not (name := file.relative_to(PACKAGE).as_posix()).startswith(ALLOWED_FOLDERS)
        for engine in named(file)
    }
    assert found == ALLOWED.keys()
