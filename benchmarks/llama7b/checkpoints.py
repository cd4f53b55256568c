"""Makes the checkpoints with random weights that are missing, if the disk has room for them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from llama7b.shapes import SHAPES, write_dense, write_gptq
from llama7b.variants import Source

GB = 1e9
ELSEWHERE = "name a folder on another disk with --folder"


@contextmanager
def made_in(named: Path | None) -> Iterator[Path]:
    """Yield the folder for checkpoints: `named`, or a temporary one."""
    if named is not None:
        yield named
        return
    with tempfile.TemporaryDirectory(prefix="quantchat-") as folder:
        yield Path(folder)


def checkpoint(folder: Path, shape: str, source: Source) -> Path:
    """Return the checkpoint for `source` in `folder`; make it if it is missing.

    Raises SystemExit if it cannot be written.
    """
    made = _place(folder, shape, source)
    if made.is_dir():
        return made
    print(f"writing {shape}, {source.name}, {_size(shape, source) / GB:.1f} GB", flush=True)
    part = made.with_name(f"{made.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # left by a run that was stopped
    try:
        part.mkdir(parents=True)
        if source.bits:
            write_gptq(part, SHAPES[shape], source.bits, source.group)
        else:
            write_dense(part, SHAPES[shape])
        part.replace(made)
    except (OSError, SafetensorError) as error:
        raise SystemExit(f"{made}: cannot be written: {error}; {ELSEWHERE}") from None
    return made


def check_disk_space(folder: Path, shape: str, sources: Iterable[Source]) -> None:
    """Create `folder`; raise SystemExit if its disk has no room for the missing checkpoints."""
    missing = [one for one in set(sources) if not _place(folder, shape, one).is_dir()]
    needed = sum(_size(shape, source) for source in missing)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise SystemExit(f"{folder}: cannot be used: {error.strerror}; {ELSEWHERE}") from None
    if free < needed:
        raise SystemExit(
            f"{folder}: the disk is too full: the checkpoints take {needed / GB:.1f} GB, "
            f"{free / GB:.1f} GB are free: {ELSEWHERE}"
        )


def _place(folder: Path, shape: str, source: Source) -> Path:
    return folder / f"{shape}-{source.name}"


def _size(shape: str, source: Source) -> int:
    return SHAPES[shape].size(source.bits, source.group)
