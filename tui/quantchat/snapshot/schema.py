"""The schema of a snapshot: the requests, what really ran, the answers, and all their figures.

All text is exactly as the models and the user wrote it. Times are in nanoseconds of each worker's
own monotonic clock, sizes in bytes; -1 in a ledger means "not known".

Old files must stay readable. If a change to these models, or to the dataclasses in them, makes old
files invalid, it needs a new `SCHEMA_VERSION`. A renamed field goes into `formerly`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from itertools import pairwise
from typing import Annotated, ClassVar, Final, Literal

from pydantic import AfterValidator, Field, JsonValue, model_validator

from quantchat.estimate.memory import Estimate
from quantchat.profile.field_docs import DescribedSchema
from quantchat.profile.schema import DIALECT
from quantchat.snapshot.evaluation import EvaluationRecord
from quantchat.snapshot.fields import AsObject, Record, Text
from quantchat.snapshot.load_test import LoadTestRecord
from quantchat.snapshot.pick import PickRecord
from quantchat.snapshot.score import ScoreRecord
from quantchat.snapshot.votes import VotingRecord
from quantchat.statistics.divergence import DivergenceScore
from quantchat.statistics.drafts import Drafts
from quantchat.statistics.latency import TurnTiming
from quantchat.statistics.surprisal import CrossPerplexity
from quantchat.system.energy import Energy
from quantchat.system.process_memory import ProcessMemory
from quantchat.system.sampler import DeviceSample
from quantchat.wire.messages import Failed, Sampling
from quantchat.wire.variant import Ledger, ModelInfo

SCHEMA_VERSION: Final = 1


class RequestRecord(Record):
    """The request for an answer."""

    system: Text
    """System prompt; empty if none was sent."""
    messages: int
    """Number of messages that were sent, including the system prompt and the prompt."""
    sampling: AsObject[Sampling]
    """How the next token was chosen."""
    max_new_tokens: int
    """Longest answer, in tokens."""
    threads: int
    """CPU threads for decoding; 0: their number was not changed."""


class LoadTimesRecord(Record):
    """The load time and its parts, in seconds."""

    total_s: float
    """From the start of the process until the variant was ready, without fetching the model."""
    import_s: float
    """From the start of the process until the libraries were imported."""
    weights_s: float
    """Loading the weights; for a server that quantchat starts, starting it."""
    warmup_s: float
    """The rest of the time: compiling kernels and warming up; for a server, the trial requests."""


class AnswerRecord(Record):
    """One variant's answer, token by token. `ids`, `pieces` and `times_ns` run in parallel."""

    formerly: ClassVar[Mapping[str, str]] = {
        "surprises": "cross_perplexities",
        "resolved": "model_info",
    }

    variant: Text
    """Label of the variant."""
    order: Literal["together", "in-turn"]
    """`together`: both variants decoded at once (contended). `in-turn`: this variant ran alone."""
    state: Literal["waiting", "prefill", "streaming", "done", "failed"]
    """`done` and `failed` are final. Any other state means that the snapshot was taken before the
    answer ended."""
    reason: Text
    """Why the answer ended: eos, stop_string, eos_or_stop_string (a server does not report which
    of the two), length (`max_new_tokens` was reached), stop (by the user), context (it was full) or
    failed; empty if the answer had not ended."""
    request: RequestRecord | None
    """What was sent; None if nothing was sent, e.g. because the user had already stopped the
    turn."""
    model_info: AsObject[ModelInfo] | None = None
    """What ran, if it differs from the record of the variant."""
    prompt_tokens: int
    """Tokens of the prompt, including cached tokens; 0 if not known."""
    cached_tokens: int
    """Prompt tokens taken from the KV cache instead of computed."""
    received_ns: int
    """When the worker received the prompt; 0 if it did not."""
    prefilled_ns: int
    """When the last prompt token was computed; 0 if that did not happen or is not known."""
    ids: list[int]
    """Id of each output token; -1 for each chunk of a server's text."""
    pieces: list[Text]
    """The text of the answer that each token completed; empty while a character is incomplete, or
    if the token belongs to the thoughts."""
    thought_pieces: list[Text] = Field(default_factory=list)
    """The text of the thoughts that each token completed; an empty list if there are no
    thoughts."""
    times_ns: list[int]
    """When the CPU had the id of each token; for a server, when each chunk arrived."""
    text: Text
    """The whole answer, decoded at once. If the pieces differ from it, this text is right."""
    thoughts: Text = ""
    """The model's reasoning before the answer; not part of the answer."""
    thought_tokens: int = 0
    """Output tokens of the thoughts and the marks around them; -1 if their number is not known."""
    raw: Text = ""
    """Thoughts and answer with the model's own marks; empty if that equals `text`."""
    timing: AsObject[TurnTiming]
    """Latency and throughput, as the screen showed them."""
    ledger: AsObject[Ledger] | None
    """Memory at the end of the answer; None if it is not known."""
    drafts: AsObject[Drafts] | None = None
    """The counts of speculative decoding; None without a draft, or if they are not known."""
    energy: AsObject[Energy] | None = None
    """Energy of the GPU; None if the variant did not run alone or the GPU has no counter."""
    cross_perplexities: list[AsObject[CrossPerplexity]] = Field(default_factory=list)
    """The perplexity of the answer as each variant computes it; empty if it was not measured."""
    failure: AsObject[Failed] | None
    """Why the answer failed; None if it did not."""

    @property
    def output_pieces(self) -> list[str]:
        """Return the text that each token completed, of the thoughts or of the answer."""
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
    """Number of the turn in the snapshot, from 1."""
    prompt: Text
    """The user's message."""
    answers: list[AnswerRecord]
    """The answer of each variant that was asked."""
    task: int | None = None
    """Number of the task in the measurement, from 1; None in a chat."""
    round: int | None = None
    """Number of the round in the measurement, from 1; None in a chat."""
    history_of: Text = ""
    """Label of the variant whose earlier answers both variants got as the history of the chat;
    empty if each got its own."""
    others: list[list[AnswerRecord]] = Field(default_factory=list)
    """Other answers to the same prompt, the oldest first, if the turn was regenerated."""
    divergence_point: int | None
    """Index of the first output token at which the first two answers differ.

    None if the answers do not differ, or if the variants' tokenizers differ, so that token ids
    cannot be compared.
    """
    divergence: AsObject[DivergenceScore] | None = None
    """The probabilities that each variant gives to both answers' tokens at the divergence point;
    None if not measured."""


class VariantRecord(Record):
    """One variant: what really ran, its load time and its memory when the snapshot was taken."""

    formerly: ClassVar[Mapping[str, str]] = {"resolved": "model_info"}

    label: Text
    """Name of the variant in the profile."""
    state: Text
    """State when the snapshot was taken: idle, preparing, loading, ready, answering or failed."""
    model_info: AsObject[ModelInfo] | None
    """What really ran; None if the variant never ran."""
    load: LoadTimesRecord | None
    """How long loading took; None if it is not known, e.g. because the variant never ran."""
    note: Text
    """A note on the model, e.g. that the model it was made from was itself dequantized."""
    ledger: AsObject[Ledger] | None
    """Memory by its parts when the snapshot was taken; None if the variant was not loaded."""
    memory: AsObject[ProcessMemory] | None
    """Memory of its worker when the snapshot was taken, and the source of this figure; None without
    a worker."""
    predicted: AsObject[Estimate] | None = None
    """The memory that `quantchat plan` estimates from the headers of the model's files; None if
    these could not be read."""
    failure: AsObject[Failed] | None
    """Why the variant failed; None if it did not. In a pick, the candidate's `dropped` has the
    reason instead."""


class TaskRecord(Record):
    """One prompt of a measurement."""

    prompt: Text
    """Text of the prompt, before it was repeated or cut."""
    prompt_tokens: int
    """The prompt was repeated or cut to this many tokens; 0: used unchanged."""
    output_tokens: int
    """Longest answer, in tokens; 0: the limit in the profile's sampling settings."""


class DisturbedRecord(Record):
    """A turn of a measurement that was interrupted, e.g. because the machine was suspended.

    Its figures are not in the snapshot. The turn was measured again, or left out if every try was
    interrupted.
    """

    task: int
    """Number of the task, from 1."""
    round: int
    """Number of the round, from 1."""
    reason: Text
    """What interrupted the turn."""
    left_out: bool
    """Whether every try was interrupted, so that the turn is missing."""


class MeasurementRecord(Record):
    """How the turns with a `round` were measured."""

    tasks: list[TaskRecord]
    """The prompts, in the order in which they were measured."""
    rounds: int
    """Number of rounds that were planned. If the measurement was to end once the interval was
    narrow enough or a time was over, and the user did not stop it: number of rounds that were
    measured."""
    warmup: int
    """Number of tasks that were answered before the first round, without being measured."""
    order: Literal["together", "in-turn"]
    """`together`: both variants decoded at once, contended. `in-turn`: one at a time."""
    ignore_eos: bool
    """Whether answers went on after the end-of-sequence token, so that all were equally long."""
    stopped: bool
    """Whether the user stopped the measurement before its end."""
    samples: list[AsObject[DeviceSample]]
    """Samples of the machine, taken before each round and at the end."""
    flags: list[Text]
    """Warnings: reasons to doubt the figures, e.g. a GPU clock that changed."""
    disturbed: list[DisturbedRecord] = Field(default_factory=list)
    """Turns that were interrupted, with one entry for each interruption."""
    until_width: float | None = None
    """The measurement was planned to end once the interval of the ratio of decode throughput was at
    most as wide as from the ratio ÷ (1 + this) to the ratio × (1 + this). None: it was planned to
    end after a number of rounds."""


class Environment(Record):
    """The machine and the software, without the user's environment variables."""

    python: Text
    """Implementation and version of quantchat's own Python."""
    os: Text
    """Operating system with its version and the architecture of the machine."""
    libraries: dict[Text, Text]
    """Versions in quantchat's environment. `model_info` has those that a worker really used."""
    device: AsObject[DeviceSample]
    """GPUs with driver and clocks, CPU and RAM when the snapshot was taken."""


def _with_zone(value: str) -> str:
    if datetime.fromisoformat(value).tzinfo is None:
        raise ValueError("the time has no zone")
    return value


class Snapshot(Record):
    """The state of a comparison at one moment."""

    schema_version: Literal[1] = SCHEMA_VERSION
    """Version of this format."""
    created: Annotated[
        Text, AfterValidator(_with_zone), Field(json_schema_extra={"format": "date-time"})
    ]
    """When the snapshot was taken: ISO 8601, with the time zone."""
    quantchat: Text
    """Version of quantchat that wrote the snapshot."""
    name: Text
    """Name of the profile."""
    profile: dict[Text, JsonValue]
    """The profile as it was given: plain JSON, so that an old profile stays readable."""
    shown: list[Text]
    """Labels of the left and the right variant."""
    variants: list[VariantRecord]
    """All variants of the profile, in its order."""
    turns: list[TurnRecord]
    """The turns of the chat, then those of a measurement."""
    measurement: MeasurementRecord | None = None
    """How the turns with a `round` were measured; None without a measurement."""
    voting: VotingRecord | None = None
    """Blind votes on turns of the chat; None if there are none."""
    score: ScoreRecord | None = None
    """How much the variants' predictions differ from those of the reference; None if not
    measured."""
    evaluation: EvaluationRecord | None = None
    """The results of the variants in tasks; None if not measured."""
    pick: PickRecord | None = None
    """The decision of `quantchat pick`; None in other snapshots."""
    load_test: LoadTestRecord | None = None
    """The result of a load test (many requests at once); None if not measured."""
    environment: Environment
    """The machine and the software on which the snapshot was taken."""


def json_schema() -> dict[str, object]:
    """Return the JSON Schema of a snapshot file, draft 2020-12, with a description for each key."""
    described = Snapshot.model_json_schema(schema_generator=DescribedSchema)
    return {"$schema": DIALECT, **described, "title": "quantchat snapshot"}
