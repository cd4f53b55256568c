"""What a test file imports, itself and through the fakes that it uses."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]

SLOW = (
    *("torch", "transformers", "tokenizers", "safetensors", "datasets", "gguf", "accelerate"),
    *("bitsandbytes", "gptqmodel", "peft", "lm_eval", "subprocess", "multiprocessing", "pty"),
    *("quantchat.app", "quantchat.worker", "quantchat.host.worker_process"),
)
"""Modules that load an ML library, start a process, or draw the screen."""


def is_fast(path: Path) -> bool:
    """Return whether `path` is a unit test that imports nothing slow."""
    return TESTS / "unit" in path.parents and not _slow(path)


@functools.cache
def _slow(path: Path) -> bool:
    return any(
        name == module or name.startswith(f"{module}.")
        for name in _imported(path)
        for module in SLOW
    ) or any(_slow(fake) for fake in _fakes(path))


@functools.cache
def _imported(path: Path) -> frozenset[str]:
    return frozenset(_names(ast.parse(path.read_text(encoding="utf-8"))))


def _names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _fakes(path: Path) -> Iterator[Path]:
    for name in _imported(path):
        fake = TESTS / f"{name.replace('.', '/')}.py"
        if name.startswith("fakes.") and fake.is_file():
            yield fake
