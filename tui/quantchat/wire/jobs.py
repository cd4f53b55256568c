"""Jobs of a worker besides chatting: for each job the request, its result, and their parts.

A job is a frozen dataclass that the program sends; the worker answers with the result type that the
job names (`ScoreJob(Job[ScoreResult])`), or with `Failed`. Both cross the pipe under their class
names and are decoded as strictly as every message. Folders and files are absolute paths, token
counts are of the model's own tokenizer.
"""

from __future__ import annotations

import typing
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, TypeVar

from quantchat.wire.library import Library
from quantchat.wire.messages import Load
from quantchat.wire.variant import Resolved

Result = TypeVar("Result")


class Job(Generic[Result]):
    """A request to do one job; `Result` is the dataclass that the worker answers with."""

    title: ClassVar[str]
    """Name of the job in logs and progress messages."""

    @classmethod
    def result_type(cls) -> type[Result]:
        """Return the dataclass that answers this job."""
        (base,) = (b for b in cls.__orig_bases__ if typing.get_origin(b) is Job)  # type: ignore[attr-defined]
        return typing.cast("type[Result]", typing.get_args(base)[0])


@dataclass(frozen=True)
class Workspace:
    """Where a job works. The folders exist; it writes nowhere else."""

    scratch: str
    """The job's current folder: libraries write into it."""
    output: str
    """Folder for what the job makes; empty at the start."""
    unfinished: str = ""
    """Folder that outlives a job that is stopped: the next one can go on from it."""
    threads: int = 0
    """CPU threads; 0 leaves torch's own choice."""


# ---------------------------------------------------------------- making a checkpoint

CHATS = "chats.jsonl"
"""File with the calibration samples, one JSON record a line, in the job's output folder."""

CHATS_TEXT = "chats.txt"
"""File with the same samples as plain text, as the model reads them."""

LEAST = 32
"""Fewest calibration samples where the user names no number."""

LONG, SHORT = 512, 160
"""Longest calibration sample in tokens, on a GPU and on a CPU."""

CalibrationPart = Literal["calibration", "held out"]


@dataclass(frozen=True)
class DequantizeResult:
    """What `DequantizeJob` made."""

    parameters: int


@dataclass(frozen=True)
class DequantizeJob(Job[DequantizeResult]):
    """Unpack `gguf_file` in the folder `source` to a dense bf16 checkpoint with its tokenizer."""

    title = "dequantize"

    source: str
    gguf_file: str
    workspace: Workspace


@dataclass(frozen=True)
class CalibrateResult:
    """Calibration that was written: number of samples, and their length in tokens together."""

    samples: int
    tokens: int


@dataclass(frozen=True)
class CalibrateJob(Job[CalibrateResult]):
    """Let a model in full precision answer `prompts`, and write `CHATS` and `CHATS_TEXT`."""

    title = "calibrate"

    load: Load
    """The model, with the tokenizer and the chat template's variables in its options."""
    prompts: list[str]
    samples: int | None
    """Chats to write; None: as many as the model needs on its device."""
    sample_tokens: int | None
    """Longest answer in tokens; None: as suits the device."""
    seed: int
    """Of the sampling of answers after the first (greedy) one to each prompt."""
    workspace: Workspace
    group_size: int = -1
    """The GPTQ group size that the chats are for: refused at once if it does not fit the model."""


@dataclass(frozen=True)
class CollectResult:
    """Calibration that was written."""

    samples: int
    tokens: int
    found: int
    """Samples there were to choose from, the held-out ones included."""
    length: int
    """Tokens after which samples are cut."""


@dataclass(frozen=True)
class CollectJob(Job[CollectResult]):
    """Take calibration samples out of a file or a data set; write `CHATS` and `CHATS_TEXT`.

    A chat is one sample; longer text is cut into pieces. All are shuffled by `seed`.
    """

    title = "collect"

    load: Load
    """The model, whose tokenizer counts tokens."""
    part: CalibrationPart
    samples: int | None
    """Most samples to write; None: as many as the model needs on its device."""
    held_out: int
    """Samples to hold apart, at most a quarter of what there is; `part` says which are written."""
    sample_tokens: int | None
    """Longest sample in tokens; None: as suits the device."""
    seed: int
    workspace: Workspace
    file: str = ""
    """The file to read; empty where `dataset` is given."""
    sha256: str = ""
    """The hash that `file` must still have."""
    dataset: str = ""
    """`hub:name[:split[:column]]`."""


@dataclass(frozen=True)
class MergedAdapter:
    """A LoRA adapter that was merged into a model."""

    name: str
    """Its folder or hub id."""
    kind: str
    """In words: `LoRA r8 on q_proj`."""
    sha256: str
    """Over its config and its weights."""


@dataclass(frozen=True)
class MergeAdapterResult:
    """What `MergeAdapterJob` made."""

    adapter: MergedAdapter


@dataclass(frozen=True)
class MergeAdapterJob(Job[MergeAdapterResult]):
    """Merge `adapter`, an absolute folder or a hub id, into a model in full precision; save it."""

    title = "merge adapter"

    load: Load
    adapter: str
    workspace: Workspace


@dataclass(frozen=True)
class QuantizeBitsAndBytesResult:
    """What `QuantizeBitsAndBytesJob` made."""

    kernel: str
    """Class and format of the quantized layers."""


@dataclass(frozen=True)
class QuantizeBitsAndBytesJob(Job[QuantizeBitsAndBytesResult]):
    """Quantize a model in full precision with bitsandbytes, and save it."""

    title = "quantize bitsandbytes"

    load: Load
    """Of engine `bitsandbytes`, whose options say how to quantize."""
    workspace: Workspace


@dataclass(frozen=True)
class GptqSettings:
    """Settings of GPTQModel's `QuantizeConfig`, under its names."""

    bits: int
    group_size: int
    desc_act: bool
    act_group_aware: bool
    sym: bool
    damp_percent: float
    true_sequential: bool


@dataclass(frozen=True)
class AwqSettings:
    """Settings of GPTQModel's `AWQConfig`, under its names."""

    bits: int
    group_size: int
    sym: bool


@dataclass(frozen=True)
class ModuleLoss:
    """Quantization error of one module."""

    layer: int
    module: str
    loss: float | None
    """Mean squared error as GPTQModel measured it; None where it fell back to rounding."""


@dataclass(frozen=True)
class CalibrationUsed:
    """What a GPTQ or AWQ checkpoint was calibrated on."""

    samples: int
    tokens: int
    sha256: str
    """Over the file of samples."""
    widest: int = 0
    """Inputs of the widest module; 0: not recorded, as by older versions."""
    chat_template_kwargs: dict[str, object] = field(default_factory=dict)
    """Variables that the chat template was given."""


@dataclass(frozen=True)
class QuantizeGptqResult:
    """What `QuantizeGptqJob` made."""

    layers: int
    losses: list[ModuleLoss]
    calibration: CalibrationUsed
    resumed: int
    """The first layer that this try quantized; 0: it began at the start."""


@dataclass(frozen=True)
class QuantizeGptqJob(Job[QuantizeGptqResult]):
    """Quantize a model in full precision with GPTQ, layer by layer, and save it.

    The calibration samples are put beside the checkpoint. Finished layers are stored in the
    workspace's `unfinished`, where GPTQModel can go on from them.
    """

    title = "quantize gptq"

    load: Load
    """The model in full precision, with tokenizer and chat template variables in its options."""
    settings: GptqSettings
    calibration: str
    """File of samples, as `CHATS`."""
    workspace: Workspace
    most_tokens: int | None = None
    """Tokens after which a sample is cut; None: not cut."""


@dataclass(frozen=True)
class QuantizeAwqJob(Job[QuantizeGptqResult]):
    """Quantize a model in full precision with AWQ, layer by layer, and save it.

    As `QuantizeGptqJob`, but GPTQModel cannot go on from finished layers.
    """

    title = "quantize awq"

    load: Load
    settings: AwqSettings
    calibration: str
    workspace: Workspace
    most_tokens: int | None = None


# ---------------------------------------------------------------- reading a text


@dataclass(frozen=True)
class ScoreResult:
    """What a model read, and how long it took. The figures are in the job's output folder."""

    resolved: Resolved
    tokens: int
    """Tokens of the text that were read."""
    positions: int
    """Tokens that were scored."""
    context: int
    """Tokens at the start of each window that are only read."""
    ids_sha256: str
    """Over the ids of the tokens."""
    begin: str
    """The token (BOS) that the tokenizer puts first; empty if there is none."""
    vocabulary: int
    seconds: float
    """Time of reading, without loading."""
    weights: int
    """Bytes of the model's weights; -1 for a server."""
    likeliest: int = -1
    """Tokens of each position that a server names, 0 if it names none: the others count as one. -1
    for a model whose logits are all known."""


@dataclass(frozen=True)
class ScoreJob(Job[ScoreResult]):
    """Let a model read a text, and write a float64 for each scored token into the output folder.

    The files: `nll` (surprisal in nats), `top` (id of the likeliest token), for each model of
    `against` `<name>.forward`, KL(that model ‖ this one), and `<name>.backward`, KL(this ‖ that),
    in nats; and with `keep` the file `kept`, the KL divergence of the stored logits from the
    computed ones. The file `windows` has the token ids of all windows, int64. A server that names
    no token ids has only `nll`.
    """

    title = "score"

    load: Load
    text: str
    """The file to read."""
    window: int
    """Tokens of a window."""
    stride: int
    """Tokens from the start of a window to the start of the next."""
    workspace: Workspace
    tokens: int = 0
    """Tokens of the text to read; 0: all."""
    ids_sha256: str = ""
    """The hash that the text's token ids must have; empty: any."""
    against: dict[str, str] = field(default_factory=dict)
    """Files with other models' logits of the same tokens, by the name their figures get."""
    keep: str = ""
    """Name of the file to store the model's own logits in; empty: they are not stored."""
    copies: int = 0
    """Number of such files that the disk must have room for."""
    windows: str = ""
    """For a server: the file `windows` that the reference wrote, whose tokens the server reads."""


# ---------------------------------------------------------------- doing tasks


@dataclass(frozen=True)
class TaskFigure:
    """One metric of a task, as lm-evaluation-harness computes it."""

    metric: str
    filter: str
    value: float
    error: float | None
    """Standard error; None where the figure is no mean over documents."""
    right: str
    """A 0 or 1 for each document in order; empty where the metric is not of that kind."""


@dataclass(frozen=True)
class TaskResult:
    """What a model reached in one task."""

    task: str
    version: str
    few_shot: int
    documents: int
    documents_sha256: str
    """Over everything that was asked and expected, in order."""
    figures: list[TaskFigure]


@dataclass(frozen=True)
class EvaluateResult:
    """What a model reached in all tasks."""

    resolved: Resolved
    harness: str
    """Version of lm-evaluation-harness."""
    seconds: float
    """Time of answering, without loading."""
    tasks: list[TaskResult]


@dataclass(frozen=True)
class EvaluateJob(Job[EvaluateResult]):
    """Let a model do tasks of lm-evaluation-harness."""

    title = "evaluate"

    load: Load
    tasks: list[str]
    """Names that the harness knows, or paths of its YAML files."""
    workspace: Workspace
    limit: int = 0
    """Documents of each task; 0: all."""
    few_shot: int = -1
    """Examples before each question; -1: as many as the task says."""
    batch: int = 1
    """Questions answered at once."""
    template: bool = False
    """Whether to ask in the model's chat template."""


# ---------------------------------------------------------------- many requests at once

ROUNDS = "rounds.jsonl"
"""File in the output folder of a load test or batch job: each finished round as a line of JSON."""


@dataclass(frozen=True)
class Level:
    """How requests arrive at a server during a round of a load test."""

    concurrency: int
    """Most requests that are open at once; 0: no limit, which needs a `rate`."""
    rate: float = 0.0
    """Requests per second, arriving as a Poisson process; 0: the next as soon as one has ended."""


@dataclass(frozen=True)
class RequestTimes:
    """One request of a load test. Times are in ns since the start of its round.

    `chunks_ns` are the arrivals of its chunks of text, usually one for each token.
    """

    due_ns: int
    """When it was due. It is sent later if `concurrency` requests are open already."""
    sent_ns: int
    chunks_ns: list[int]
    ended_ns: int
    prompt_tokens: int
    """As the server counts them; -1 if it counts none."""
    output_tokens: int
    """As the server counts them; the number of chunks if it counts none."""
    error: str = ""
    """Why it failed; empty if it was answered."""


@dataclass(frozen=True)
class LoadRound:
    """One round of a load test at one level."""

    level: int
    """Index of the level in the job."""
    requests: list[RequestTimes]
    """In the order in which they were due, without those of the warm-up."""


@dataclass(frozen=True)
class LoadTestResult:
    """What answered a load test. The rounds are in the file `ROUNDS`."""

    resolved: Resolved
    note: str
    """What the user must know about the figures."""
    counted: bool
    """Whether the server counted its tokens."""


@dataclass(frozen=True)
class LoadTestJob(Job[LoadTestResult]):
    """Send many requests to a server at once, level after level, and write `ROUNDS`.

    The levels take turns: round 1 of each level, then round 2 of each.
    """

    title = "load test"

    load: Load
    """The server, which is started if the profile says so."""
    levels: list[Level]
    prompts: list[str]
    """Sent in turn."""
    requests: int
    """Requests of a round; 0: four times the level's concurrency, at least 8."""
    output_tokens: int
    """Tokens of each answer: the end-of-sequence token is ignored where the server can."""
    rounds: int
    seed: int
    """Of the arrival times and of the answers."""
    workspace: Workspace


@dataclass(frozen=True)
class BatchRound:
    """A batch of prompts that were decoded together once. Times are in ns."""

    batch: int
    prompt_tokens: list[int]
    """Tokens of each prompt."""
    prefill_ns: int
    """Time to compute all prompts; the first tokens are then known."""
    steps_ns: list[int]
    """Time of each further step, which gives a token to each of the prompts."""
    kv_bytes: int
    """Size of the KV cache at the end."""
    peak_bytes: int
    """Most memory at any time of the round: torch's on a GPU, the process' on a CPU."""
    failure: str = ""
    """Why it could not be decoded, e.g. memory; the times are then empty."""


@dataclass(frozen=True)
class BatchResult:
    """The model that decoded the batches. The rounds are in the file `ROUNDS`."""

    resolved: Resolved


@dataclass(frozen=True)
class BatchJob(Job[BatchResult]):
    """Decode batches of prompts together with a loaded model, and write `ROUNDS`.

    The sizes take turns, smallest first. A size that does not fit in memory ends the larger ones.
    """

    title = "batches"

    load: Load
    batches: list[int]
    """Prompts in a batch, each size once, ascending."""
    prompt_tokens: int
    """Tokens of the longest prompt."""
    output_tokens: int
    mixed: bool
    """Whether prompts differ in length: evenly from a quarter of `prompt_tokens` to all."""
    rounds: int
    workspace: Workspace


# ---------------------------------------------------------------- looking at kernels

KernelState = Literal["ready", "compiles first", "cannot run"]

READY: KernelState = "ready"
COMPILES: KernelState = "compiles first"
UNUSABLE: KernelState = "cannot run"
MUST_COMPILE = "must be compiled"
"""First words of the detail of a kernel that cannot run because no compiler is there."""


@dataclass(frozen=True)
class CudaDevice:
    """A GPU as torch names it; `capability` as in `9.0`."""

    name: str
    capability: str


@dataclass(frozen=True)
class TorchInfo:
    """The installed torch."""

    version: str
    cuda: str
    """CUDA version it was built for; empty for a CPU build."""
    available: bool
    """Whether it can use a GPU."""
    error: str
    """Why it cannot; empty where it can, or is a CPU build."""
    devices: list[CudaDevice]


@dataclass(frozen=True)
class BuildTools:
    """What kernels are compiled with: paths or versions, empty where missing."""

    nvcc: str
    nvcc_release: str
    lacking: str
    """Why no kernel can be compiled; empty if one can."""
    cxx: str
    ninja: str
    triton: str


@dataclass(frozen=True)
class Kernel:
    """A kernel for quantized layers, and whether it runs on this machine."""

    library: str
    name: str
    state: KernelState
    detail: str = ""
    auto: bool = False
    """Whether `kernel = "auto"` takes it for 4 bits in groups of 128."""
    by_itself: bool = True
    """Whether `auto` considers it at all."""


@dataclass(frozen=True)
class InspectKernelsResult:
    """What the worker's interpreter can run."""

    torch: TorchInfo
    tools: BuildTools
    libraries: dict[str, str]
    """Libraries that cannot be imported, with the reason."""
    kernels: list[Kernel]


@dataclass(frozen=True)
class Loader:
    """An engine's loader, and the libraries that it imports; the first has its kernels."""

    module: str
    """Dotted name."""
    libraries: list[Library]


@dataclass(frozen=True)
class InspectKernelsJob(Job[InspectKernelsResult]):
    """Try the kernels of the engines' libraries; nothing is compiled or written for it."""

    title = "inspect kernels"

    workspace: Workspace
    loaders: list[Loader]
    """The loaders of all engines."""


# ---------------------------------------------------------------- all of them

AnyJob = (
    DequantizeJob
    | CalibrateJob
    | CollectJob
    | MergeAdapterJob
    | QuantizeBitsAndBytesJob
    | QuantizeGptqJob
    | QuantizeAwqJob
    | ScoreJob
    | EvaluateJob
    | LoadTestJob
    | BatchJob
    | InspectKernelsJob
)
JobResult = (
    DequantizeResult
    | CalibrateResult
    | CollectResult
    | MergeAdapterResult
    | QuantizeBitsAndBytesResult
    | QuantizeGptqResult
    | ScoreResult
    | EvaluateResult
    | LoadTestResult
    | BatchResult
    | InspectKernelsResult
)

JOBS: tuple[type[Job[Any]], ...] = typing.get_args(AnyJob)
