"""Several results of one kind side by side: what their tables and JSON documents share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from rich.text import Text

from quantchat.document.figures import when
from quantchat.snapshot.evaluation import EvaluationRecord
from quantchat.snapshot.schema import Snapshot
from quantchat.snapshot.score import ScoreRecord
from quantchat.text import one_line

Found = TypeVar("Found", ScoreRecord, EvaluationRecord)


@dataclass(frozen=True)
class Result(Generic[Found]):
    """What a snapshot holds of the kind that is compared, and the file it came from."""

    file: str
    snapshot: Snapshot
    found: Found


def heading(position: int, file: str, snapshot: Snapshot) -> Text:
    """Which snapshot stands in this place, counted from 1."""
    return Text.assemble(
        (f"Run {position}", "bold"),
        f" {one_line(file)}\n  {one_line(snapshot.name)}, saved {one_line(when(snapshot.created))}",
    )


def not_comparable(obstacles: Iterable[str]) -> list[Text]:
    """A line for each of `obstacles`, despite which they were compared."""
    return [Text(f"! not comparable: {one_line(reason)}", style="red") for reason in obstacles]


def document(
    results: Sequence[Result[Found]], obstacles: Sequence[str], kind: str
) -> dict[str, Any]:
    """All that is shown of `results`, as plain JSON values under `kind`; text is raw."""
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
