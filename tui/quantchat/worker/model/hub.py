"""Files of the Hugging Face hub, or a line that says why they cannot be had."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from quantchat.wire.messages import Load
from quantchat.worker.environment_failures import environment_failure
from quantchat.worker.failures import Refused, first_line
from quantchat.worker.model.files_check import check_files
from quantchat.worker.model.hub_room import check_room
from quantchat.worker.model.pickles import refuse_all_pickled

Tell = Callable[[int, int], None]
"""Hears how many bytes of how many have come; the total grows while files are looked up."""

_TELL_S = 0.2


def of_mib(done: int, total: int) -> str:
    """`312 of 16,063 MiB`."""
    return f"{done / 2**20:,.0f} of {total / 2**20:,.0f} MiB"


NO_WEIGHTS = ["*.json", "*.jinja", "*.model", "*.tiktoken", "vocab.txt", "merges.txt"]
"""Configuration and tokenizer, in whatever form."""
_ELSEWHERE = ["*/*", "consolidated*"]
"""What libraries other than transformers want, Meta's and Mistral's own: the weights once more."""


class Fetched(NamedTuple):
    """Files of a hub on this machine, and what to say of them."""

    folder: Path
    note: str = ""
    """Why they are the copy in the hub's cache, where the hub could not be asked."""


def described(command: Load) -> Path:
    """Folder with the small files of what `command` names by an id, its weights aside.

    What they tell is known before anything large is fetched. Raises Refused.
    """
    import huggingface_hub

    try:
        return fetched(
            command.model,
            command.revision,
            "",
            allow_patterns=NO_WEIGHTS,
            ignore_patterns=_ELSEWHERE,
        ).folder
    except Refused:
        # What a library fetched once may lack files that it had no use for.
        config = huggingface_hub.try_to_load_from_cache(
            command.model, "config.json", revision=command.revision
        )
        if not isinstance(config, str):
            raise
        return Path(config).parent


def checkpoint(command: Load, tell: Tell) -> Fetched:
    """The checkpoint that `command` names by an id: fetched, or a whole one in the hub's cache.

    The libraries, given the id, ask the hub about file after file, also for what is here: without a
    network that takes minutes. Raises Refused.
    """
    gguf, pickles = command.options.get("gguf_file"), bool(command.options.get("allow_pickle"))
    weights = [gguf] if gguf else ["*.safetensors", *(["*.bin"] if pickles else [])]
    code = ["*.py"] if command.trust_remote_code else []
    try:
        found = fetched(
            command.model,
            command.revision,
            "",
            tell,
            allow_patterns=[*weights, *code, *NO_WEIGHTS],
            ignore_patterns=_ELSEWHERE,
        )
    except Refused as refused:
        # What a library fetched once lacks files that it had no use for: the hub's library calls
        # that incomplete.
        folder = _whole_in_cache(command, weights)
        if folder is None or refused.failure.kind == "no_space":
            raise
        found = Fetched(folder, _from_cache(refused.failure.reason))
    if not gguf and not pickles:
        refuse_all_pickled(found.folder, command.model, switch="allow_pickle" in command.options)
    return found


def _whole_in_cache(command: Load, weights: list[str]) -> Path | None:
    """The folder in the hub's cache that holds all of a checkpoint; None where none does."""
    import huggingface_hub

    config = huggingface_hub.try_to_load_from_cache(
        command.model, "config.json", revision=command.revision
    )
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    try:
        gguf = bool(command.options.get("gguf_file"))
        check_files(str(folder), gguf=gguf, tokenizer="tokenizer" not in command.options)
    except Refused:
        return None
    return folder if any(any(folder.glob(pattern)) for pattern in weights) else None


def _from_cache(why: str) -> str:
    return f"the copy in the hub's cache is taken, which may be an older one: {why}"


def _telling(tell: Tell, begun: Callable[[], None]) -> type[Any]:
    """A progress bar that draws nothing, and tells `tell`; `begun` is called when one is made."""
    from tqdm.std import tqdm

    class Telling(tqdm):  # type: ignore[misc]
        def __init__(self, *given: Any, **named: Any) -> None:
            begun()
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


def fetched(
    name: str, revision: str | None, what: str, tell: Tell = lambda *counts: None, **which: Any
) -> Fetched:
    """The files of `name` on the hub, from the hub's cache where they are there.

    `what` is it called in words where that is not `name` alone, e.g. "the adapter"; `which` is
    `allow_patterns` or `ignore_patterns` of `snapshot_download`. Raises Refused, also before
    anything is fetched for which the disk is too full.
    """
    import huggingface_hub
    from huggingface_hub import constants

    check_room(name, revision, which)
    asked: list[bool] = []
    bar = _telling(tell, lambda: asked.append(True))
    try:
        folder = Path(
            huggingface_hub.snapshot_download(name, revision=revision, tqdm_class=bar, **which)
        )
    except Exception as error:  # noqa: BLE001 - as below
        # Whatever it was: a cache that is read only, a login page instead of the hub's answer, a
        # hub that is slow. Each raises another kind, of several libraries.
        refused = _refused(error, f"{what} {name}".strip())
        try:
            folder = Path(
                huggingface_hub.snapshot_download(
                    name, revision=revision, local_files_only=True, **which
                )
            )
        except Exception:  # noqa: BLE001 - the first reason is the one that helps
            raise refused from error
        return Fetched(folder, _from_cache(refused.failure.reason))
    # Where the hub cannot be reached the library takes its cached copy without a word, and begins
    # no bar; so it does where it was told to stay offline.
    if asked or constants.HF_HUB_OFFLINE:
        return Fetched(folder)
    return Fetched(folder, _from_cache("the hub did not answer"))


def _refused(error: Exception, name: str) -> Refused:
    """Why `name` cannot be had from the hub, by what its library raised."""
    from huggingface_hub import constants

    what = f"cannot fetch {name} from the hub"
    if (failure := environment_failure(error)) is not None:
        return Refused("fetch_failed", f"{what}: {failure.reason}", failure.hint)
    if isinstance(error, ValueError) and "JSON" in type(error).__name__:
        return Refused(
            "fetch_failed",
            f"{what}: {constants.ENDPOINT} answers with something else than the hub does",
            "look at that address in a browser: the network's login page may stand between, or a"
            " proxy; or name a folder that holds the model",
        )
    return Refused(
        "fetch_failed",
        f"{what}: {first_line(error)}",
        "check its name, the network, and for what is gated that you are logged in"
        " (`hf auth login`); or name a folder that holds it",
    )


def fetched_named(named: str, what: str, **which: Any) -> Path:
    """Folder of what a profile names `org/name` or `org/name@revision`, as `fetched` finds it."""
    name, _, revision = named.partition("@")
    found = fetched(name, revision or None, what, **which)
    if found.note:
        print(found.note)  # noqa: T201 - to the worker's log
    return found.folder
