"""Files of the Hugging Face hub, or a line that says why they cannot be had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quantchat.worker.failures import Refused


def fetched(name: str, revision: str | None, what: str, **which: Any) -> Path:
    """Folder with the files of `name` on the hub, from the hub's cache where they are there.

    `what` is it called in words where that is not `name` alone, e.g. "the adapter"; `which` is
    `allow_patterns` or `ignore_patterns` of `snapshot_download`. Raises Refused.
    """
    import huggingface_hub
    from huggingface_hub import errors

    try:
        return Path(huggingface_hub.snapshot_download(name, revision=revision, **which))
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, errors.HFValidationError) as e:
        why = next((line.strip() for line in str(e).splitlines() if line.strip()), type(e).__name__)
        raise Refused(
            "fetch_failed",
            f"cannot fetch {f'{what} ' if what else ''}{name} from the hub: {why}",
            "check its name, the network, and for what is gated that you are logged in"
            " (`hf auth login`); or name a folder that holds it",
        ) from e
