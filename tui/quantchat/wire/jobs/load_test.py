"""Jobs with many requests at once: a load test of a server, batches of a local model."""

from __future__ import annotations

from dataclasses import dataclass

from quantchat.wire.jobs.job import Job, Workspace
from quantchat.wire.messages import LoadModel
from quantchat.wire.variant import ModelInfo

ROUNDS_FILE = "rounds.jsonl"
"""File in the output folder of a load test or batch job: each finished round as a line of JSON."""


PROGRESS_FILE = "progress.jsonl"
"""File in the output folder of a load test: each line is a `LoadTestProgress` of the running round,
the newest last."""


@dataclass(frozen=True)
class LoadTestLevel:
    """How requests arrive at a server during a round of a load test."""

    concurrency: int
    """Largest number of requests that are open (sent and not ended) at once; 0: no limit, which
    needs a `rate`."""
    rate: float = 0.0
    """Requests per second, at the times of a Poisson process; 0: a request is sent as soon as
    another has ended."""


@dataclass(frozen=True)
class RequestTimes:
    """One request of a load test. Times are in ns since the start of its round."""

    due_ns: int
    """When the request was due. It is sent later if `concurrency` requests are already open."""
    sent_ns: int
    """When the request was sent."""
    chunks_ns: list[int]
    """When each chunk of text arrived, usually one for each token; empty if none arrived."""
    ended_ns: int
    """When the answer ended or failed."""
    prompt_tokens: int
    """Prompt tokens as the server counts them; -1 if it does not count."""
    output_tokens: int
    """Output tokens as the server counts them; the number of chunks if it does not count."""
    error: str = ""
    """Why the request failed; empty if it was answered."""


@dataclass(frozen=True)
class LoadTestRound:
    """One round of a load test at one load level."""

    level: int
    """Index of the level in `LoadTestJob.levels`."""
    requests: list[RequestTimes]
    """The requests in the order in which they were due, without those of the warm-up."""


@dataclass(frozen=True)
class LoadTestProgress:
    """Progress of the running round of a load test, written as requests are sent and end."""

    level: int
    """Index of the level in `LoadTestJob.levels`."""
    warm_up: bool
    """Whether this is the round of the warm-up, which is not measured."""
    in_flight: int
    """Requests that have been sent and have not ended."""
    answered: int
    """Requests of this round that have ended, including failed requests."""
    failed: int
    total: int
    """Number of requests of this round, including those that are not yet sent."""
    output_tokens: int
    """Output tokens of the requests of this round that have ended."""
    seconds: float
    """Seconds since the start of the round."""


@dataclass(frozen=True)
class LoadTestResult:
    """Which server and model answered a load test. The rounds are in the file `ROUNDS_FILE`."""

    model_info: ModelInfo
    note: str
    """Notes for the user on the figures."""
    tokens_counted: bool
    """Whether the server counted its tokens."""


@dataclass(frozen=True)
class LoadTestJob(Job[LoadTestResult]):
    """Send many requests to a server at once, at several load levels, and write `ROUNDS_FILE`.

    The levels take turns: round 1 of each level, then round 2 of each.
    """

    title = "load test"

    server: LoadModel
    """The server, which is started if the profile says so."""
    levels: list[LoadTestLevel]
    prompts: list[str]
    """The prompts, which are sent one after another, from the first again after the last."""
    requests: int
    """Requests per round; 0: four times the level's concurrency, at least 8."""
    output_tokens: int
    """Longest answer, in tokens. The end-of-sequence token is ignored if the server supports
    that."""
    rounds: int
    seed: int
    """Seed of the arrival times and of the answers."""
    workspace: Workspace


@dataclass(frozen=True)
class BatchRound:
    """One round: a batch of prompts that were decoded together once. Times are in ns."""

    batch: int
    """Number of prompts in the batch."""
    prompt_tokens: list[int]
    """Tokens of each prompt."""
    prefill_ns: int
    """Time to compute all prompts and the first token of each answer."""
    steps_ns: list[int]
    """Time of each further step, which adds a token to each answer."""
    kv_bytes: int
    """Size of the KV cache at the end, in bytes."""
    peak_bytes: int
    """Peak memory during the round, in bytes: of torch on a GPU, of the process on a CPU."""
    failure: str = ""
    """Why the batch could not be decoded, e.g. too little memory; then there are no times."""


@dataclass(frozen=True)
class BatchResult:
    """The model that decoded the batches. The rounds are in the file `ROUNDS_FILE`."""

    model_info: ModelInfo


@dataclass(frozen=True)
class BatchJob(Job[BatchResult]):
    """Decode batches of prompts together with a loaded model, and write `ROUNDS_FILE`.

    The sizes take turns, the smallest first. If a size does not fit into memory, larger ones are
    not tried.
    """

    title = "batches"

    model: LoadModel
    batches: list[int]
    """Batch sizes (numbers of prompts), ascending, each once."""
    prompt_tokens: int
    """Tokens of the longest prompt."""
    output_tokens: int
    mixed: bool
    """Whether prompts differ in length, evenly spread from a quarter of `prompt_tokens` to all."""
    rounds: int
    workspace: Workspace
