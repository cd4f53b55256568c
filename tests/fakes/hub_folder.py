"""A model's folder as the Hugging Face cache has it: each file a link to a blob elsewhere."""

from __future__ import annotations

from pathlib import Path


def as_in_hub_cache(folder: Path) -> Path:
    """Put the files of `folder` into `blobs` two folders above, and links in their place."""
    blobs = folder.parents[1] / "blobs"
    blobs.mkdir()
    for number, file in enumerate(sorted(folder.iterdir())):
        blob = file.replace(blobs / f"{number:040x}")
        file.symlink_to(Path("../../blobs", blob.name))
    return folder
