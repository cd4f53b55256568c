"""The snapshot: what was asked, what really ran, what was said, and every figure of it.

All text is raw, as the models and the user wrote it. Times are nanoseconds of each worker's own
monotonic clock, sizes are bytes; -1 in a ledger is "not known".

A snapshot outlives the program that wrote it: a change to these models, or to the dataclasses they
take in, that an old file does not fit needs a new `SCHEMA_VERSION`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import AfterValidator, Field, JsonValue, model_validator

from quantchat.estimate.memory import Estimate
from quantchat.profile.schema import DIALECT
from quantchat.snapshot.evaluation import EvaluationRecord
from quantchat.snapshot.fields import AsObject, Record, Text
from quantchat.snapshot.score import ScoreRecord
from quantchat.snapshot.votes import VotingRecord
from quantchat.statistics.divergence import DivergenceScore
from quantchat.statistics.latency import TurnTiming
from quantchat.statistics.surprisal import CrossPerplexity
from quantchat.system.energy import Energy
from quantchat.system.process_memory import ProcessMemory
from quantchat.system.sampler import DeviceSample
from quantchat.wire.messages import Failed, Sampling
from quantchat.wire.variant import Ledger, Resolved

SCHEMA_VERSION: Final = 1


class RequestRecord(Record):
    """How an answer was asked for."""

    system: Text
    """System prompt; empty where none was sent."""
    messages: int
    """Messages of the chat that were sent, the prompt among them."""
    sampling: AsObject[Sampling]
    max_new_tokens: int
    threads: int
    """CPU threads it was decoded with; 0 is torch's own choice."""


class LoadRecord(Record):
    """What loading cost, in seconds."""

    total_s: float
    """Process start to ready."""
    import_s: float
    weights_s: float
    warmup_s: float


class AnswerRecord(Record):
    """One variant's answer, token by token. `ids`, `pieces` and `times_ns` run in parallel."""

    formerly: ClassVar[Mapping[str, str]] = {"surprises": "cross_perplexities"}

    variant: Text
    """Label of the variant."""
    order: Literal["together", "in-turn"]
    """`together`: contended, the other variant decoded meanwhile. `in-turn`: it ran alone."""
    state: Literal["waiting", "prefill", "streaming", "done", "failed"]
    """`done` and `failed` are over; else the snapshot was taken in the middle."""
    reason: Text
    """Why it ended: eos, length, stop, context, failed; empty while it goes on."""
    request: RequestRecord | None
    """None where the variant was never asked, as after an early stop."""
    resolved: AsObject[Resolved] | None = None
    """What ran, where that was not what its variant's record names."""
    prompt_tokens: int
    cached_tokens: int
    """Prompt tokens taken from the kept KV cache, not computed."""
    received_ns: int
    """When the worker received the prompt; 0 where it did not."""
    prefilled_ns: int
    """When the last prompt token was computed; 0 where it was not."""
    ids: list[int]
    pieces: list[Text]
    """The text of the answer that each token made final, often empty."""
    thought_pieces: list[Text] = Field(default_factory=list)
    """The same of the thoughts; empty where there are none."""
    times_ns: list[int]
    """When each token was known on the host."""
    text: Text
    """The whole answer, decoded at once: the authority over the pieces."""
    thoughts: Text = ""
    """What the model thought before it answered (its reasoning): no part of the answer."""
    thought_tokens: int = 0
    """Output tokens that are thoughts or marks around them; -1: there are, not counted."""
    raw: Text = ""
    """Thoughts and answer as the model wrote them, with its marks; empty where that is `text`."""
    timing: AsObject[TurnTiming]
    """Latency and throughput, as the screen showed them."""
    ledger: AsObject[Ledger] | None
    """Memory at the end of the answer."""
    energy: AsObject[Energy] | None = None
    """What it took of the GPU; None where it did not run alone or nothing counts it."""
    cross_perplexities: list[AsObject[CrossPerplexity]] = Field(default_factory=list)
    """What each variant thinks of it, token by token; empty where they were not asked."""
    failure: AsObject[Failed] | None

    @property
    def output_pieces(self) -> list[str]:
        """The text that each token made final, of the thoughts or of the answer."""
        if not self.thought_pieces:
            return list(self.pieces)
        return [a + b for a, b in zip(self.thought_pieces, self.pieces, strict=True)]

    @model_validator(mode="after")
    def _parallel(self) -> AnswerRecord:
        if not len(self.ids) == len(self.pieces) == len(self.times_ns):
            raise ValueError("ids, pieces and times_ns differ in length")
        if self.thought_pieces and len(self.thought_pieces) != len(self.ids):
            raise ValueError("thought_pieces and ids differ in length")
        if any(later < earlier for earlier, later in pairwise(self.times_ns)):
            raise ValueError("times_ns goes back in time")
        return self


class TurnRecord(Record):
    """One prompt and the answers to it."""

    formerly: ClassVar[Mapping[str, str]] = {"parting": "divergence"}

    number: int
    prompt: Text
    answers: list[AnswerRecord]
    task: int | None = None
    """Which task of the measurement this is, counted from 1; None in a chat."""
    round: int | None = None
    """Which round of the measurement this is, counted from 1; None in a chat."""
    divergence_point: int | None
    """Index of the first output token at which the first two answers differ.

    None where they do not, and where their tokenizers do, so that ids cannot be compared.
    """
    divergence: AsObject[DivergenceScore] | None = None
    """How likely each of the two held either token there; None where they were not asked."""


class VariantRecord(Record):
    """One variant: what really ran, what it took to load and what it holds."""

    label: Text
    state: Text
    """Where it was in its life when the snapshot was taken."""
    resolved: AsObject[Resolved] | None
    """None where it never ran."""
    load: LoadRecord | None
    note: Text
    """What must be known of the model, e.g. that its base was itself dequantized."""
    ledger: AsObject[Ledger] | None
    memory: AsObject[ProcessMemory] | None
    """Of its process, when the snapshot was taken, with the source of the figure."""
    predicted: AsObject[Estimate] | None = None
    """What `quantchat plan` says of it, from the model's headers; None where they do not tell."""
    failure: AsObject[Failed] | None


class TaskRecord(Record):
    """One prompt of a measurement."""

    prompt: Text
    prompt_tokens: int
    """The prompt was repeated or cut to this many tokens; 0: taken as it is."""
    output_tokens: int
    """Longest answer, in tokens; 0: as the generation settings say."""


class DisturbedRecord(Record):
    """A turn of a measurement that something stopped, e.g. the machine was suspended meanwhile.

    Its figures are not in the snapshot: it was measured again, or left out where that was stopped,
    too.
    """

    task: int
    """Counted from 1, as in its turn."""
    round: int
    reason: Text
    left_out: bool


class MeasurementRecord(Record):
    """How the turns with a `round` were measured."""

    tasks: list[TaskRecord]
    rounds: int
    """As asked; fewer turns mean that it was stopped."""
    warmup: int
    """Tasks answered and thrown away first."""
    order: Literal["together", "in-turn"]
    ignore_eos: bool
    stopped: bool
    samples: list[AsObject[DeviceSample]]
    """The machine before each round and at the end."""
    flags: list[Text]
    """What casts doubt on the figures, e.g. a clock that changed meanwhile."""
    disturbed: list[DisturbedRecord] = Field(default_factory=list)
    """Turns that were stopped meanwhile, each time that happened."""


class Environment(Record):
    """The machine and the software, without anything of the user's environment variables."""

    python: Text
    os: Text
    libraries: dict[Text, Text]
    """Versions beside quantchat; those a worker really used are in what it resolved."""
    device: AsObject[DeviceSample]
    """GPUs with driver and clocks, processor, main memory, when the snapshot was taken."""


def _with_zone(value: str) -> str:
    if datetime.fromisoformat(value).tzinfo is None:
        raise ValueError("a time without a zone")
    return value


class Snapshot(Record):
    """A comparison as it stood at one moment."""

    schema_version: Literal[1] = SCHEMA_VERSION
    created: Annotated[
        Text, AfterValidator(_with_zone), Field(json_schema_extra={"format": "date-time"})
    ]
    """ISO 8601, with its zone."""
    quantchat: Text
    """Version that wrote it."""
    name: Text
    """Name of the profile."""
    profile: dict[Text, JsonValue]
    """The profile as asked. Plain JSON, so that an old file never fails today's rules."""
    shown: list[Text]
    """Labels of the two variants on show, left and right."""
    variants: list[VariantRecord]
    turns: list[TurnRecord]
    """Of the chat, then those of a measurement."""
    measurement: MeasurementRecord | None = None
    voting: VotingRecord | None = None
    """Blind votes on turns of the chat; None where there were none."""
    score: ScoreRecord | None = None
    """How far the variants are from the model they were made from; None where it was not asked."""
    evaluation: EvaluationRecord | None = None
    """What the variants were right on in tasks; None where it was not asked."""
    environment: Environment


def json_schema() -> dict[str, Any]:
    """JSON Schema of a snapshot file, draft 2020-12, with a description for each key."""
    return {"$schema": DIALECT, **Snapshot.model_json_schema(), "title": "quantchat snapshot"}
