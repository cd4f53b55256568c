"""A model's folder like those of the Hugging Face cache: each file links to a blob elsewhere."""

from __future__ import annotations

from pathlib import Path


def as_in_hub_cache(folder: Path) -> Path:
    """Move the files of `folder` into `blobs` two folders above, and put links in their place."""
    blobs = folder.parents[1] / "blobs"
    blobs.mkdir()
    for number, file in enumerate(sorted(folder.iterdir())):
        blob = file.replace(blobs / f"{number:040x}")
        file.symlink_to(Path("../../blobs", blob.name))
    return folder
