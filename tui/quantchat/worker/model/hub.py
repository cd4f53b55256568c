"""Download files from the Hugging Face hub, or raise Refused with the reason in one line.

The hub's library, huggingface_hub, stores downloaded files in a cache on this machine.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from quantchat.common import gguf
from quantchat.wire.messages import LoadModel
from quantchat.worker.environment_failures import environment_failure
from quantchat.worker.failures import Refused, first_line
from quantchat.worker.model.files_check import check_files, refuse_all_pickled

Report = Callable[[int, int], None]
"""A function that is called with the downloaded and the total bytes; the total grows while files
are listed."""

_REPORT_S = 0.2
"""Fewest seconds between two reports of a download's progress."""
_LIST_TIMEOUT_S = 10.0
"""Seconds to wait until the hub lists the files of a repository."""
_MIB = 2**20


def of_mib(done: int, total: int) -> str:
    """Return e.g. `312 of 16,063 MiB`."""
    return f"{done / _MIB:,.0f} of {total / _MIB:,.0f} MiB"


NO_WEIGHTS = ["*.json", "*.jinja", "*.model", "*.tiktoken", "vocab.txt", "merges.txt"]
"""Patterns of all files of a model except weights and code: configs, tokenizer, chat template."""
_DUPLICATES = ["*/*", "consolidated*"]
"""Patterns of files that are never downloaded. Some repositories hold the weights a second time, in
subfolders or as `consolidated*`, in the formats of Meta's and Mistral's own libraries."""


class FetchedFiles(NamedTuple):
    """Files of the hub on this machine."""

    folder: Path
    note: str = ""
    """Why a cached copy is used; empty if the hub answered."""


def small_files(command: LoadModel) -> Path:
    """Download all files of the model id in `command` except weights and code; return the folder.

    The caller checks these files before anything large is downloaded. Raises Refused as
    `fetch_files` does.
    """
    import huggingface_hub

    try:
        return fetch_files(
            command.model,
            command.revision,
            "",
            allow_patterns=NO_WEIGHTS,
            ignore_patterns=_DUPLICATES,
        ).folder
    except Refused:
        # snapshot_download refuses a cached copy in which a file is missing. Another library may
        # have cached only the files that it needed: look for config.json alone.
        config = huggingface_hub.try_to_load_from_cache(
            command.model, "config.json", revision=command.revision
        )
        if not isinstance(config, str):
            raise
        return Path(config).parent


def checkpoint(command: LoadModel, report: Report) -> FetchedFiles:
    """Download the checkpoint of the model id in `command`, or use a complete copy in the cache.

    The libraries that load the model then get a local folder. If they got the id, they would ask
    the hub about each file, even a cached file, which takes minutes without a network. Raises
    Refused as `fetch_files` does, and if the weights are pickled and `allow_pickle` is off.
    """
    file, pickles = command.option("gguf_file", ""), command.option("allow_pickle", False)
    weights = [file] if file else ["*.safetensors", *(["*.bin"] if pickles else [])]
    code = ["*.py"] if command.trust_remote_code else []
    try:
        found = fetch_files(
            command.model,
            command.revision,
            "",
            report,
            allow_patterns=[*weights, *code, *NO_WEIGHTS],
            ignore_patterns=_DUPLICATES,
        )
    except Refused as refused:
        # snapshot_download refuses a cached copy in which a file is missing, though this variant
        # may not need that file.
        folder = _whole_in_cache(command, weights)
        if folder is None or refused.failure.kind == "no_space":
            raise
        found = FetchedFiles(folder, _from_cache(refused.failure.reason))
    if not file and not pickles:
        refuse_all_pickled(
            found.folder, command.model, has_option="allow_pickle" in command.options
        )
    return found


def gguf_files(command: LoadModel, wanted: str, report: Report) -> FetchedFiles:
    """Download the GGUF file that `wanted` names (see `gguf.choose_file`), with all its parts.

    `command` has the model id. If the hub cannot be reached, the file is chosen among the cached
    files. Raises Refused as `fetch_files` does, and if `wanted` does not name exactly one file.
    """
    import huggingface_hub
    from huggingface_hub import constants

    name = command.model
    try:
        model_info = huggingface_hub.HfApi(endpoint=constants.ENDPOINT).model_info(
            name, revision=command.revision or "main", timeout=_LIST_TIMEOUT_S
        )
        names = [file.rfilename for file in model_info.siblings or []]
    except Exception as error:  # noqa: BLE001 - several libraries raise here, see `fetch_files`
        try:
            cached = huggingface_hub.snapshot_download(
                name, revision=command.revision, local_files_only=True
            )
        except Exception:  # noqa: BLE001 - the first reason helps more
            raise _refusal(error, name) from error
        names = [str(file.relative_to(cached)) for file in Path(cached).rglob(gguf.ANY)]
    try:
        files = gguf.parts(Path(gguf.choose_file(names, wanted)))
    except gguf.BadGguf as error:
        raise Refused("bad_checkpoint", f"{name} {error}", error.hint) from error
    return fetch_files(
        name, command.revision, "", report, allow_patterns=[str(one) for one in files]
    )


def _whole_in_cache(command: LoadModel, weights: list[str]) -> Path | None:
    """Return the folder in the cache that holds the complete checkpoint, or None.

    `weights` are patterns of the files with weights, of which at least one file must exist.
    """
    import huggingface_hub

    config = huggingface_hub.try_to_load_from_cache(
        command.model, "config.json", revision=command.revision
    )
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    try:
        has_gguf = bool(command.option("gguf_file", ""))
        check_files(str(folder), gguf=has_gguf, tokenizer="tokenizer" not in command.options)
    except Refused:
        return None
    return folder if any(any(folder.glob(pattern)) for pattern in weights) else None


def _from_cache(why: str) -> str:
    return f"loaded the copy in the hub's cache, which may be old: {why}"


def _progress_class(report: Report, created: Callable[[], None]) -> type[Any]:
    """Return a class of progress bars that show nothing.

    Each calls `created` when it is created, and `report` with the progress of the download.
    """
    from tqdm.std import tqdm

    class ProgressBar(tqdm):  # type: ignore[misc]
        def __init__(self, *given: Any, **named: Any) -> None:
            created()
            # huggingface_hub creates several bars. The bar "Reconstructing" counts the bytes that
            # were written to the disk; only this bar calls `report`. Another bar counts the bytes
            # that the network transferred, which may be fewer, and a third counts files.
            self._counts = named.get("unit") == "B" and "Reconstructing" in named.get("desc", "")
            self._reported_s = 0.0
            super().__init__(*given, **{**named, "disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            self.n += n or 0
            now = time.monotonic()
            if self._counts and now - self._reported_s > _REPORT_S:
                self._reported_s = now
                report(int(self.n), int(self.total or 0))
            return None

    return ProgressBar


def fetch_files(
    name: str, revision: str | None, what: str, report: Report = lambda *counts: None, **which: Any
) -> FetchedFiles:
    """Return the files of `name` on the hub, from the hub's cache if they are in it.

    `what` describes `name` in messages, e.g. "the adapter". `which` has the arguments
    `allow_patterns` and `ignore_patterns` of `huggingface_hub.snapshot_download`. Raises Refused if
    the files can neither be downloaded nor are in the cache, or if the disk has no room for them.
    """
    import huggingface_hub
    from huggingface_hub import constants

    check_disk_space(name, revision, which)
    bars_created: list[bool] = []
    bar = _progress_class(report, lambda: bars_created.append(True))
    try:
        folder = Path(
            huggingface_hub.snapshot_download(name, revision=revision, tqdm_class=bar, **which)
        )
    except Exception as error:  # noqa: BLE001 - explained in the next line
        # A read-only cache, a login page in place of the hub's answer, and a slow hub raise
        # exceptions of different types, from huggingface_hub, its HTTP library and others.
        refused = _refusal(error, f"{what} {name}".strip())
        try:
            folder = Path(
                huggingface_hub.snapshot_download(
                    name, revision=revision, local_files_only=True, **which
                )
            )
        except Exception:  # noqa: BLE001 - the first reason helps more
            raise refused from error
        return FetchedFiles(folder, _from_cache(refused.failure.reason))
    # Without a connection, and in its offline mode, huggingface_hub silently returns its cached
    # copy and creates no progress bar.
    if bars_created or constants.HF_HUB_OFFLINE:
        return FetchedFiles(folder)
    return FetchedFiles(folder, _from_cache("the hub did not answer"))


def _refusal(error: Exception, name: str) -> Refused:
    """Return the Refused with the reason why `name` cannot be downloaded.

    `error` is the exception that huggingface_hub has raised.
    """
    from huggingface_hub import constants

    what = f"cannot download {name} from the hub"
    if (failure := environment_failure(error)) is not None:
        return Refused("fetch_failed", f"{what}: {failure.reason}", failure.hint)
    if isinstance(error, ValueError) and "JSON" in type(error).__name__:
        return Refused(
            "fetch_failed",
            f"{what}: {constants.ENDPOINT} answered, but not as a model hub does (no JSON)",
            "open that address in a browser, because a login page or a proxy may answer"
            " instead of the hub; or name a folder that holds the model",
        )
    return Refused(
        "fetch_failed",
        f"{what}: {first_line(error)}",
        "check the name and the network; for a gated model, log in with `hf auth login`; or name a"
        " folder that holds the files",
    )


def fetch_named_model(named: str, what: str, **which: Any) -> Path:
    """Download `org/name` or `org/name@revision` (see `fetch_files`); return its folder."""
    name, _, revision = named.partition("@")
    found = fetch_files(name, revision or None, what, **which)
    if found.note:
        print(found.note)  # noqa: T201 - to the worker's log
    return found.folder


# ------------------------------------------------------------ room on the disk


def check_disk_space(name: str, revision: str | None, which: dict[str, object]) -> None:
    """Raise Refused if the files of `name` that are not cached need more than the free disk space.

    `which` has the arguments `allow_patterns` and `ignore_patterns` of `snapshot_download`. If the
    hub cannot be reached or reports no sizes, nothing is raised here; the download then reports the
    error.
    """
    import huggingface_hub
    from huggingface_hub import constants

    patterns = {key: which.get(key) for key in ("allow_patterns", "ignore_patterns")}
    try:
        huggingface_hub.snapshot_download(
            name, revision=revision, local_files_only=True, **patterns
        )
    except Exception:  # noqa: BLE001 - not all files are cached; the download reports other errors
        needed = _missing(name, revision, patterns)
    else:
        return  # everything is on the disk
    cache = Path(constants.HF_HUB_CACHE)
    there = next(folder for folder in (cache, *cache.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise Refused(
            "no_space",
            f"the disk has no room to download {name}: {needed / _MIB:,.0f} MiB are needed,"
            f" {free / _MIB:,.0f} are free in {cache}",
            "free some space, or set HF_HOME to a folder on another disk",
        )


def _missing(name: str, revision: str | None, patterns: dict[str, object]) -> int:
    """Return how many bytes are still to be downloaded; 0 if the hub does not report sizes."""
    import huggingface_hub
    from huggingface_hub import constants
    from huggingface_hub.utils import filter_repo_objects

    try:
        model_info = huggingface_hub.HfApi(endpoint=constants.ENDPOINT).model_info(
            name, revision=revision or "main", files_metadata=True, timeout=_LIST_TIMEOUT_S
        )
    except Exception:  # noqa: BLE001 - the download reports it
        return 0
    files = filter_repo_objects(
        model_info.siblings or [], key=lambda file: file.rfilename, **patterns
    )
    blobs = Path(constants.HF_HUB_CACHE, f"models--{name.replace('/', '--')}", "blobs")
    total = 0
    for file in files:
        here = huggingface_hub.try_to_load_from_cache(name, file.rfilename, revision=model_info.sha)
        blob = (file.lfs.sha256 if file.lfs else file.blob_id) or ""
        if not isinstance(here, str) and not (blob and (blobs / blob).exists()):
            total += max(0, (file.size or 0) - _partial_bytes(blobs, blob))
    return total


def _partial_bytes(blobs: Path, blob: str) -> int:
    """Return how many bytes of the file `blob` another process or an earlier run has downloaded.

    `blobs` is the folder of the cache with the files of a repository, named by their hashes.
    """
    partial_files = blobs.glob(f"{blob}*.incomplete") if blob else ()
    return max((512 * partial.stat().st_blocks for partial in partial_files), default=0)
