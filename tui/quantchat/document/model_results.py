"""Parts of documents that scores, evaluations and load tests share, such as notes on models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from quantchat.document.document import Block, paragraph, warnings
from quantchat.document.figures import when
from quantchat.snapshot.evaluation import EvaluatedRecord, EvaluationRecord
from quantchat.snapshot.load_test import LoadTestedRecord, LoadTestRecord
from quantchat.snapshot.schema import Snapshot
from quantchat.snapshot.score import ScoredRecord, ScoreRecord

Found = TypeVar("Found", ScoreRecord, EvaluationRecord, LoadTestRecord)

_Models = Sequence[ScoredRecord] | Sequence[EvaluatedRecord] | Sequence[LoadTestedRecord]


@dataclass(frozen=True)
class Result(Generic[Found]):
    """A score, evaluation or load test (`found`), its snapshot, and the snapshot's file."""

    file: str
    snapshot: Snapshot
    found: Found


def heading(position: int, file: str, snapshot: Snapshot) -> list[Block]:
    """Return the heading of a compared run: its position, from 1, and its file, name and time."""
    return [
        paragraph((f"Run {position}", "heading"), f" {file}"),
        paragraph(f"{snapshot.name}, saved {when(snapshot.created)}", indent=2),
    ]


def not_comparable(obstacles: Iterable[str]) -> list[Block]:
    """Return a warning for each of `obstacles`, for runs that were compared nevertheless."""
    return warnings((f"not comparable: {reason}" for reason in obstacles), "bad")


def failures(models: _Models) -> list[str]:
    """Return which of `models` failed and why, a line each."""
    return [f"{model.label} failed: {model.failure.reason}" for model in models if model.failure]


def notes(models: _Models) -> list[str]:
    """Return each note on `models` with the models that it is about, a line each."""
    noted: dict[str, list[str]] = {}
    for model in models:
        if model.note:
            noted.setdefault(model.note, []).append(model.label)
    return [f"{', '.join(labels)}: {note}" for note, labels in noted.items()]


def json_document(
    results: Sequence[Result[Found]], obstacles: Sequence[str], kind: str
) -> dict[str, object]:
    """Return `results` as JSON values; each run has its record under the key `kind`.

    `obstacles` are the reasons why the runs are not comparable. Control characters in text are not
    replaced.
    """
    return {
        "comparable": not obstacles,
        "obstacles": list(obstacles),
        "runs": [
            {
                "run": position,
                "file": one.file,
                "name": one.snapshot.name,
                "created": one.snapshot.created,
                kind: one.found.model_dump(),
            }
            for position, one in enumerate(results, 1)
        ],
    }
