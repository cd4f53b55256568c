"""A load test in a snapshot: every request of each round, with the times of its chunks.

In one round, the requests (or the batch) of one load level are answered once. Times are in ns since
the start of a round, sizes in bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from pydantic import Field

from quantchat.snapshot.fields import AsObject, Record, Text
from quantchat.statistics.serving import LevelFigures, level_figures, limits, of_batch
from quantchat.wire.jobs import BatchRound, LoadTestLevel, LoadTestRound, RequestTimes
from quantchat.wire.messages import Failed
from quantchat.wire.variant import ModelInfo


class LoadTestedRecord(Record):
    """One variant and its rounds."""

    formerly: ClassVar[Mapping[str, str]] = {
        "counted": "tokens_counted",
        "resolved": "model_info",
    }

    label: Text
    """Name of the variant in the profile."""
    model_info: AsObject[ModelInfo] | None
    """What really ran; None if the test did not finish."""
    note: Text
    """Notes on the checkpoint and on the server's figures."""
    tokens_counted: bool | None
    """Whether the server counted its tokens; if not, each chunk counts as a token. None if that is
    not known, because the test did not finish."""
    rounds: list[AsObject[LoadTestRound]] = Field(default_factory=list)
    """Rounds of a server; empty for a local model."""
    batches: list[AsObject[BatchRound]] = Field(default_factory=list)
    """Rounds of a local model; empty for a server."""
    left_out: Text = ""
    """What was left out, and why, e.g. load levels that were not tried; empty if nothing was."""
    failure: AsObject[Failed] | None = None
    """Why the test of this variant failed; None if it did not. Finished rounds are kept."""


class LoadTestRecord(Record):
    """What `quantchat load` measured."""

    levels: list[AsObject[LoadTestLevel]]
    """The load levels. At each level a server gets requests, and a local model decodes a batch of
    `concurrency` prompts."""
    requests: int
    """Requests per round for a server; 0: four times the level's concurrency, at least 8."""
    prompt_tokens: int
    """For a local model: tokens of the longest prompt. For a server: approximate number of tokens
    of each prompt; 0: it got the profile's prompts unchanged."""
    output_tokens: int
    """Longest answer, in tokens. The end-of-sequence token is ignored where that is possible."""
    mixed: bool
    """Whether the prompts of a batch differ in length."""
    rounds: int
    """Number of rounds of each level that were planned."""
    seed: int
    """Seed of the arrival times and of the answers."""
    slo: Text
    """Limits that a request must meet to count as goodput; empty if there are none."""
    models: list[LoadTestedRecord]
    """The variants that were tested, in the profile's order."""
    undone: list[Text]
    """Labels of the variants that were not measured, because the run was stopped."""

    @property
    def level_names(self) -> str:
        """The load levels as text."""
        return "; ".join(map(_name, self.levels))


def obstacles(tests: Sequence[LoadTestRecord]) -> list[str]:
    """Return the reasons why several load tests are not comparable, one line each."""
    reasons = []
    for field, name in (
        ("level_names", "load levels"),
        ("requests", "requests per round"),
        ("prompt_tokens", "prompt tokens"),
        ("output_tokens", "output tokens"),
        ("mixed", "prompts of different lengths"),
        ("slo", "limits for goodput"),
    ):
        values = dict.fromkeys(str(getattr(one, field)) for one in tests)
        if len(values) > 1:
            reasons.append(f"{name} differ: {', '.join(value or 'none' for value in values)}")
    return reasons


@dataclass(frozen=True)
class Point:
    """A point of the load curve: one level of one variant, with its rounds and their figures."""

    level: LoadTestLevel
    rounds: list[list[RequestTimes]]
    """The requests of each round; for a local model, its prompts as requests."""
    batches: list[BatchRound]
    """The rounds of a local model; empty for a server."""
    slo: str
    """`LoadTestRecord.slo`."""

    @cached_property
    def figures(self) -> LevelFigures | None:
        """The figures of the rounds; None if no request was answered."""
        return level_figures(self.rounds, limits(self.slo))

    @property
    def name(self) -> str:
        """The load level as text: `8` (requests at once), `2.5/s` (request rate), or `2.5/s, 8`."""
        return _name(self.level)

    @property
    def kv_bytes(self) -> int:
        """Size of the KV cache of a local model in bytes; -1 for a server."""
        return max((one.kv_bytes for one in self.batches), default=-1)

    @property
    def peak_bytes(self) -> int:
        """Peak memory of a local model in bytes; -1 for a server."""
        return max((one.peak_bytes for one in self.batches), default=-1)


def _name(level: LoadTestLevel) -> str:
    rate = f"{level.rate:g}/s" if level.rate else ""
    return ", ".join(filter(None, (rate, str(level.concurrency or ""))))


def points(record: LoadTestRecord, model: LoadTestedRecord) -> list[Point]:
    """Return a point for each level of which `model` has rounds, in the order of the levels."""
    result = []
    for index, level in enumerate(record.levels):
        batches = [one for one in model.batches if one.batch == level.concurrency]
        rounds = [one.requests for one in model.rounds if one.level == index]
        rounds += [times for one in batches if (times := of_batch(one))]
        if rounds or batches:
            result.append(Point(level, rounds, batches, record.slo))
    return result
