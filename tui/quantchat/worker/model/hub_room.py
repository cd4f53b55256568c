"""Whether what is to be fetched of the hub fits on the disk: looked at before the first byte."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from quantchat.worker.failures import Refused

_PATIENCE_S = 10.0
_MIB = 2**20


def check_room(name: str, revision: str | None, which: dict[str, Any]) -> None:
    """Raise Refused where the files of `name` that are not here yet need more room than there is.

    `which` is `allow_patterns` and `ignore_patterns` of `snapshot_download`. What cannot be told is
    left to the fetching, which says why it fails: a hub that gives no sizes, or that is not there.
    """
    import huggingface_hub
    from huggingface_hub import constants

    patterns = {key: which.get(key) for key in ("allow_patterns", "ignore_patterns")}
    try:
        huggingface_hub.snapshot_download(
            name, revision=revision, local_files_only=True, **patterns
        )
    except Exception:  # noqa: BLE001 - the fetching raises it again, with its reason
        needed = _missing(name, revision, patterns)
    else:
        return  # it is here: the hub need not be asked
    cache = Path(constants.HF_HUB_CACHE)
    there = next(folder for folder in (cache, *cache.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise Refused(
            "no_space",
            f"the disk is too full to fetch {name}: {needed / _MIB:,.0f} MiB are needed,"
            f" {free / _MIB:,.0f} are free in {cache}",
            "make room, or set HF_HOME to a folder on another disk",
        )


def _missing(name: str, revision: str | None, patterns: dict[str, Any]) -> int:
    """Bytes that are still to come; 0 where the hub does not tell."""
    import huggingface_hub
    from huggingface_hub import constants
    from huggingface_hub.utils import filter_repo_objects

    try:
        told = huggingface_hub.HfApi(endpoint=constants.ENDPOINT).model_info(
            name, revision=revision or "main", files_metadata=True, timeout=_PATIENCE_S
        )
    except Exception:  # noqa: BLE001 - as above
        return 0
    files = filter_repo_objects(told.siblings or [], key=lambda file: file.rfilename, **patterns)
    blobs = Path(constants.HF_HUB_CACHE, f"models--{name.replace('/', '--')}", "blobs")
    total = 0
    for file in files:
        here = huggingface_hub.try_to_load_from_cache(name, file.rfilename, revision=told.sha)
        blob = (file.lfs.sha256 if file.lfs else file.blob_id) or ""
        if not isinstance(here, str) and not (blob and (blobs / blob).exists()):
            total += max(0, (file.size or 0) - _begun(blobs, blob))
    return total


def _begun(blobs: Path, blob: str) -> int:
    """Bytes on the disk of a file that another process fetches, or that was left halfway."""
    halves = blobs.glob(f"{blob}*.incomplete") if blob else ()
    return max((512 * half.stat().st_blocks for half in halves), default=0)
