"""What a pick has measured so far, saved in the cache so that a stopped pick can continue.

The state is in a folder of the cache. The folder's name depends on what is measured (the variants,
the prompts and the text), but not on the limits. So the same command continues where it was
stopped, even with other limits. A pick removes its own folder when it is finished. At its start it
removes the folders of other picks that were not used for two weeks.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import Field

from quantchat import paths
from quantchat.errors import UserError
from quantchat.features.pick.plan import PickPlan
from quantchat.files import write_whole
from quantchat.profile.model import Profile
from quantchat.snapshot.evaluation import EvaluatedRecord
from quantchat.snapshot.fields import AsObject, Record, Text
from quantchat.snapshot.schema import TurnRecord, VariantRecord
from quantchat.snapshot.score import ScoreRecord
from quantchat.system.sampler import DeviceSample

UNUSED_S = 14 * 24 * 3600
"""Seconds without use after which the folder of a stopped pick is removed."""

_FORMAT = 1
"""Number of the file format; a state in another format is not used."""


class CandidateState(Record):
    """What was measured of one variant, or why it failed."""

    variant: VariantRecord | None = None
    """Record of the variant, from the last time that it was loaded and measured."""
    turns: list[TurnRecord] = Field(default_factory=list)
    flags: list[Text] = Field(default_factory=list)
    """Warnings about the measurement."""
    samples: list[AsObject[DeviceSample]] = Field(default_factory=list)
    evaluated: EvaluatedRecord | None = None
    """The variant's results in the tasks; None if it did not run them."""
    failed: Text = ""
    """Why the variant failed; empty if it did not."""

    @property
    def rounds(self) -> int:
        """Number of rounds that have been measured."""
        return max((turn.round or 0 for turn in self.turns), default=0)


class PickState(Record):
    """What a pick has measured so far."""

    candidates: dict[Text, CandidateState] = Field(default_factory=dict)
    """Key: the label of a variant; value: its state."""
    score: ScoreRecord | None = None
    reference_evaluated: EvaluatedRecord | None = None
    harness: Text = ""
    """Name and version of the evaluation program that ran the tasks."""


class Store:
    """Keeps the state of one pick in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / "state.json"

    def load(self) -> PickState:
        """Return the saved state, or an empty one if there is none that can be read."""
        try:
            return PickState.model_validate(json.loads(self._file.read_bytes()))
        except (OSError, ValueError):  # a ValidationError is a ValueError too
            return PickState()

    def save(self, state: PickState) -> None:
        """Save `state`. Raises UserError if it cannot be written."""
        try:
            # ASCII: text of a model may have lone surrogates, which UTF-8 cannot encode.
            write_whole(self._file, json.dumps(state.model_dump()).encode("ascii"))
        except OSError as error:
            raise UserError(
                f"cannot be written: {error.strerror or error}", where=str(self._file)
            ) from error

    def remove(self) -> None:
        """Remove the state, because the pick is finished."""
        shutil.rmtree(self.folder, ignore_errors=True)


def key_of(profile: Profile, plan: PickPlan) -> str:
    """Return the name of the folder, which depends on what `plan` measures of `profile`."""
    measured: dict[str, object] = {
        "format": _FORMAT,
        "variants": [variant.model_dump(mode="json") for variant in profile.variants],
        "generation": profile.generation.model_dump(mode="json"),
        "tasks": [asdict(task) for task in plan.speed.tasks],  # prompts for the speed
        "warmup": plan.speed.warmup,
        "ignore_eos": plan.speed.ignore_eos,
    }
    if plan.score is not None:
        measured["score"] = [
            plan.score.corpus.sha256, plan.score.tokens, plan.score.window,
            plan.score.reference.model_dump(mode="json"),
        ]  # fmt: skip
    if plan.tasks is not None:
        measured["questions"] = [*plan.tasks.tasks, plan.tasks.limit, plan.tasks.few_shot]
    text = json.dumps(measured, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextlib.contextmanager
def open_store(key: str, *, fresh: bool = False) -> Iterator[Store]:
    """Yield the store for `key`, locked for this process; with `fresh` an empty one.

    Raises UserError if another process uses it, or if the folder cannot be created.
    """
    home = paths.cache_dir() / "picks"
    with contextlib.ExitStack() as stack:
        try:
            paths.private(home)
            _remove_old(home)
            lock = FileLock(home / f"{key}.lock", mode=0o600)
            stack.enter_context(lock.acquire(blocking=False))
            store = Store(home / key)
            if fresh:
                store.remove()
            paths.private(store.folder)
        except Timeout:
            raise UserError(
                "another quantchat is making the same pick", hint="wait for it, or stop it"
            ) from None
        except OSError as error:
            raise UserError(
                f"cannot be used: {error.strerror or error}", where=str(home)
            ) from error
        yield store


def _remove_old(home: Path) -> None:
    """Remove the folders that no pick has continued for a long time."""
    for folder in home.iterdir():
        with contextlib.suppress(OSError, Timeout):
            if folder.is_dir() and time.time() - folder.stat().st_mtime > UNUSED_S:
                with FileLock(f"{folder}.lock", mode=0o600).acquire(blocking=False):
                    shutil.rmtree(folder, ignore_errors=True)
