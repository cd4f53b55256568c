"""Files of the Hugging Face hub, or a line that says why they cannot be had."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from quantchat.worker.engines.hub_room import check_room
from quantchat.worker.engines.pickles import refuse_all_pickled
from quantchat.worker.failures import Refused, first_line
from quantchat.worker.protocol import Load

Tell = Callable[[int, int], None]
"""Hears how many bytes of how many have come; the total grows while files are looked up."""

_TELL_S = 0.2


def of_mib(done: int, total: int) -> str:
    """`312 of 16,063 MiB`."""
    return f"{done / 2**20:,.0f} of {total / 2**20:,.0f} MiB"


_OPEN_PICKLES = ("bitsandbytes", "transformers")
"""Engines that have the option `allow_pickle`."""

NO_WEIGHTS = ["*.json", "*.jinja", "*.model", "*.tiktoken", "vocab.txt", "merges.txt"]
"""Configuration and tokenizer, in whatever form."""
_ELSEWHERE = ["*/*", "consolidated*"]
"""What libraries other than transformers want, Meta's and Mistral's own: the weights once more."""


def described(command: Load) -> Path:
    """Folder with the small files of what `command` names by an id, its weights aside.

    What they tell is known before anything large is fetched. Raises Refused.
    """
    return _fetched_or_here(command, allow_patterns=NO_WEIGHTS, ignore_patterns=_ELSEWHERE)


def checkpoint(command: Load, tell: Tell) -> Path:
    """Folder with the checkpoint that `command` names by an id: fetched, or from the hub's cache.

    The libraries, given the id, ask the hub about file after file, also for what is here: without a
    network that takes minutes. Raises Refused.
    """
    gguf, pickles = command.options.get("gguf_file"), bool(command.options.get("allow_pickle"))
    weights = [gguf] if gguf else ["*.safetensors", *(["*.bin"] if pickles else [])]
    code = ["*.py"] if command.trust_remote_code else []
    folder = _fetched_or_here(
        command,
        allow_patterns=[*weights, *code, *NO_WEIGHTS],
        ignore_patterns=_ELSEWHERE,
        tqdm_class=_telling(tell),
    )
    if not gguf and not pickles:
        refuse_all_pickled(folder, command.model, switch=command.engine in _OPEN_PICKLES)
    return folder


def _fetched_or_here(command: Load, **which: Any) -> Path:
    """`fetched`, or without a network what a library fetched once: it may lack unneeded files."""
    import huggingface_hub
    from huggingface_hub import errors

    try:
        return fetched(command.model, command.revision, "", **which)
    except Refused as refused:
        here = huggingface_hub.try_to_load_from_cache(
            command.model, "config.json", revision=command.revision
        )
        if not isinstance(refused.__cause__, errors.LocalEntryNotFoundError) or not here:
            raise
        return Path(str(here)).parent


def _telling(tell: Tell) -> type[Any]:
    """A progress bar that draws nothing, and tells `tell`."""
    from tqdm.std import tqdm

    class Telling(tqdm):  # type: ignore[misc]
        def __init__(self, *given: Any, **named: Any) -> None:
            # Of several bars one counts what is whole on the disk: another what has travelled,
            # which may be less, and one the files.
            self._counts = named.get("unit") == "B" and "Reconstructing" in named.get("desc", "")
            self._told_s = 0.0
            super().__init__(*given, **{**named, "disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            self.n += n or 0
            now = time.monotonic()
            if self._counts and now - self._told_s > _TELL_S:
                self._told_s = now
                tell(int(self.n), int(self.total or 0))
            return None

    return Telling


def fetched(name: str, revision: str | None, what: str, **which: Any) -> Path:
    """Folder with the files of `name` on the hub, from the hub's cache where they are there.

    `what` is it called in words where that is not `name` alone, e.g. "the adapter"; `which` is
    `allow_patterns` or `ignore_patterns` of `snapshot_download`. Raises Refused, also before
    anything is fetched for which the disk is too full.
    """
    import huggingface_hub
    from huggingface_hub import errors

    check_room(name, revision, which)
    try:
        return Path(huggingface_hub.snapshot_download(name, revision=revision, **which))
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, errors.HFValidationError) as e:
        raise Refused(
            "fetch_failed",
            f"cannot fetch {f'{what} ' if what else ''}{name} from the hub: {first_line(e)}",
            "check its name, the network, and for what is gated that you are logged in"
            " (`hf auth login`); or name a folder that holds it",
        ) from e


def fetched_named(named: str, what: str, **which: Any) -> Path:
    """`fetched` of what a profile names `org/name` or `org/name@revision`."""
    name, _, revision = named.partition("@")
    return fetched(name, revision or None, what, **which)
