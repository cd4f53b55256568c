"""The result of `quantchat pick` in a snapshot: limits, the candidates' figures, and the decision.

The candidates are the variants of the profile. The answers and scores that their figures come from
are in the same snapshot. Sizes are in bytes, speeds in tok/s, KLD in nats, shares from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from quantchat.snapshot.fields import Record, Text

Preference = Literal["fastest", "smallest", "closest"]
Outcome = Literal["shown", "shown otherwise", "undecided"]


class LimitsRecord(Record):
    """What a candidate must meet; None: no limit."""

    context: int
    """Number of tokens, of prompt and answer together, for which the memory is estimated."""
    max_memory: int | None
    """Largest memory, in bytes."""
    min_tps: float | None
    """Lowest decode throughput, in tok/s."""
    max_kld: float | None
    """Largest mean KLD from the reference, in nats."""
    max_drop: float | None
    """Largest loss of accuracy compared with the reference, from 0 to 1."""
    prefer: Preference
    """The preferred figure: decode throughput, memory, or the KLD from the reference."""


class MeasuredRecord(Record):
    """A figure with its 95 % confidence interval; `low` and `high` are None if it has none."""

    value: float
    """The estimate."""
    low: float | None
    """Lower end of the interval."""
    high: float | None
    """Upper end of the interval."""


class LimitRecord(Record):
    """One limit and what a candidate's figure shows about it."""

    limit: Text
    """The limit in words, such as `at least 40 tok/s`."""
    outcome: Outcome
    """`shown`: the limit is met. `shown otherwise`: it is missed. `undecided`: neither is shown."""
    reason: Text
    """The figure that was found and, if the limit is undecided, how many prompts, rounds or tokens
    would decide it."""
    more_rounds: bool = False
    """Whether the limit is undecided and more rounds of measuring would decide it."""


class CandidateRecord(Record):
    """One variant: why it was dropped, or its figures."""

    label: Text
    """Name of the variant in the profile."""
    dropped: Text = ""
    """Why the variant was dropped: it does not fit, failed, or was not measured in time; else
    empty."""
    memory: int | None = None
    """Memory at `LimitsRecord.context` tokens; None if it is not known."""
    memory_how: Text = ""
    """How `memory` was found, e.g. `estimated`; empty if it is not known."""
    speed: MeasuredRecord | None = None
    """Decode throughput in tok/s; None if it was not measured."""
    answers: int = 0
    """Number of measured answers from which `speed` is computed."""
    kld: MeasuredRecord | None = None
    """Mean KLD from the reference, 0 for the reference itself; None if it was not measured."""
    drop: MeasuredRecord | None = None
    """Accuracy of the reference minus the candidate's; None if it was not measured."""
    limits: list[LimitRecord] = Field(default_factory=list)
    """The result for each limit that was set; empty if the candidate was dropped."""
    frontier: bool = False
    """Whether the candidate is on the Pareto frontier: no other candidate is at least as good in
    memory, speed and KLD and better in one of them."""

    @property
    def misses_limit(self) -> bool:
        """Return whether a limit is shown to be missed."""
        return any(one.outcome == "shown otherwise" for one in self.limits)

    @property
    def meets_limits(self) -> bool:
        """Return whether every limit is shown to be met."""
        return all(one.outcome == "shown" for one in self.limits)


class ComparedRecord(Record):
    """A comparison of `PickRecord.best` with another candidate, in the preferred figure."""

    formerly: ClassVar[Mapping[str, str]] = {"told_apart": "difference_shown"}

    other: Text
    """Label of the other candidate."""
    difference: Text
    """The difference in words, such as `1.04 times as fast (0.99 to 1.09)`."""
    p: float | None
    """Two-sided p-value for no difference; None if the figure is a single value, such as memory."""
    p_holm: float | None
    """`p` after Holm's correction for all comparisons of this pick."""
    difference_shown: bool
    """Whether a difference is shown; sizes that differ by at most 1 % count as equal."""


class PickRecord(Record):
    """What `quantchat pick` found."""

    limits: LimitsRecord
    """The limits and the preference that the user set."""
    reference: Text
    """Label of the reference; empty if no candidate can be compared with one."""
    candidates: list[CandidateRecord]
    """All variants, in the profile's order."""
    best: Text
    """The candidate that is best in the preferred figure; empty if none meets the limits."""
    recommended: Text
    """`best`, or a candidate not shown to differ from it that is better in the other figures."""
    because: Text
    """Why `recommended` is not `best`; empty if it is."""
    runner_up: Text
    """The best candidate other than `recommended`; empty if there is none."""
    comparisons: list[ComparedRecord]
    """`best` against each other candidate that meets the limits or may meet them."""
    stopped: Text
    """Why some candidates were not measured, or in fewer rounds: the user stopped the command, or
    its time was used up. Empty if all were measured as planned."""

    def of(self, label: str) -> CandidateRecord | None:
        """Return the candidate with this label."""
        return next((one for one in self.candidates if one.label == label), None)
