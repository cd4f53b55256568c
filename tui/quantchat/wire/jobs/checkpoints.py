"""Jobs that build a checkpoint: dequantize, calibrate, merge an adapter, quantize.

To calibrate here means to write the calibration set: texts that the model generates itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from quantchat.wire.jobs.job import Job, Workspace
from quantchat.wire.messages import LoadModel

CHATS_FILE = "chats.jsonl"
"""File with the calibration samples in the job's output folder, one JSON record per line."""

CHATS_TEXT_FILE = "chats.txt"
"""File with the same samples as plain text, as the model reads them."""

MIN_SAMPLES = 32
"""Fewest calibration samples if the user sets no number."""

GPU_SAMPLE_TOKENS, CPU_SAMPLE_TOKENS = 512, 160
"""Longest calibration sample in tokens, on a GPU and on a CPU."""

CalibrationPart = Literal["calibration", "held out"]
"""Part of a file or data set: the calibration samples, or the samples that are kept apart to
measure the quantized model."""


@dataclass(frozen=True)
class DequantizeResult:
    """The result of `DequantizeJob`."""

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
    """The result of `CalibrateJob`: number of samples, and their total length in tokens."""

    samples: int
    tokens: int


@dataclass(frozen=True)
class CalibrateJob(Job[CalibrateResult]):
    """Let a model in full precision answer `prompts`; write `CHATS_FILE` and `CHATS_TEXT_FILE`."""

    title = "calibrate"

    load: LoadModel
    """The model; its options name the tokenizer and the variables of the chat template."""
    prompts: list[str]
    samples: int | None
    """Number of samples (chats) to write; None: as many as the model needs on its device."""
    sample_tokens: int | None
    """Longest answer in tokens; None: the default for the device."""
    seed: int
    """Seed of the sampled answers. The first answer to each prompt is greedy, further answers are
    sampled."""
    workspace: Workspace
    group_size: int = -1
    """GPTQ group size of the checkpoint that is built later; -1: a whole row. This job checks it,
    so that a size that does not fit the model is refused before the model answers."""


@dataclass(frozen=True)
class CollectSamplesResult:
    """The result of `CollectSamplesJob`."""

    samples: int
    tokens: int
    found: int
    """Number of samples that the file or data set has, including the held-out ones."""
    length: int
    """Length in tokens to which samples are cut."""


@dataclass(frozen=True)
class CollectSamplesJob(Job[CollectSamplesResult]):
    """Take calibration samples out of a file or a data set, and write them as `CalibrateJob` does.

    A chat is one sample; longer text is cut into pieces. All samples are shuffled with `seed`.
    """

    title = "collect"

    load: LoadModel
    """The model, whose tokenizer counts tokens."""
    part: CalibrationPart
    samples: int | None
    """Largest number of samples to write; None: as many as the model needs on its device."""
    held_out: int
    """Number of samples to hold out, at most a quarter of all; `part` says which part is
    written."""
    sample_tokens: int | None
    """Longest sample in tokens; None: the default for the device."""
    seed: int
    workspace: Workspace
    file: str = ""
    """The file to read; empty if `dataset` is given."""
    sha256: str = ""
    """The SHA-256 that `file` must still have."""
    dataset: str = ""
    """The data set on the hub, as `hub:name[:split[:column]]`; empty if `file` is given."""


@dataclass(frozen=True)
class MergedAdapter:
    """A LoRA adapter that was merged into a model."""

    name: str
    """Folder or hub id of the adapter."""
    kind: str
    """Kind of the adapter in words, e.g. `LoRA r8 on q_proj`."""
    sha256: str
    """SHA-256 over the adapter's config and weights."""


@dataclass(frozen=True)
class MergeAdapterResult:
    """The result of `MergeAdapterJob`."""

    adapter: MergedAdapter


@dataclass(frozen=True)
class MergeAdapterJob(Job[MergeAdapterResult]):
    """Merge `adapter`, an absolute folder or a hub id, into a model in full precision; save it."""

    title = "merge adapter"

    load: LoadModel
    adapter: str
    workspace: Workspace


@dataclass(frozen=True)
class QuantizeBitsAndBytesResult:
    """The result of `QuantizeBitsAndBytesJob`."""

    kernel: str
    """Class and format of the quantized layers."""


@dataclass(frozen=True)
class QuantizeBitsAndBytesJob(Job[QuantizeBitsAndBytesResult]):
    """Quantize a model in full precision with bitsandbytes, and save it."""

    title = "quantize bitsandbytes"

    load: LoadModel
    """The request to load the model with the engine `bitsandbytes`, whose options say how to
    quantize."""
    workspace: Workspace


@dataclass(frozen=True)
class GptqSettings:
    """Settings of GPTQModel's `QuantizeConfig`, named as there."""

    bits: int
    group_size: int
    desc_act: bool
    act_group_aware: bool
    sym: bool
    damp_percent: float
    true_sequential: bool


@dataclass(frozen=True)
class AwqSettings:
    """Settings of GPTQModel's `AWQConfig`, named as there."""

    bits: int
    group_size: int
    sym: bool


@dataclass(frozen=True)
class AutoRoundSettings:
    """Settings of auto-round's `AutoRound`, named as there."""

    bits: int
    group_size: int
    sym: bool
    iters: int


@dataclass(frozen=True)
class GgufSettings:
    """Settings of auto-round for a GGUF file."""

    format: str
    """llama.cpp's name of the format in lower case, such as `q4_k_m`."""
    iters: int


@dataclass(frozen=True)
class ModuleLoss:
    """Quantization error of one module."""

    layer: int
    module: str
    loss: float | None
    """Mean squared error as GPTQModel measured it; None if the module was rounded without
    calibration data."""


@dataclass(frozen=True)
class CalibrationUsed:
    """The calibration samples of a checkpoint."""

    samples: int
    tokens: int
    sha256: str
    """SHA-256 of the file with the samples."""
    widest: int = 0
    """Largest number of input features of a quantized module; the calibration set should have
    several times as many tokens. 0: not recorded, as by older versions."""
    chat_template_kwargs: dict[str, object] = field(default_factory=dict)
    """Variables with which the chat template was rendered."""


@dataclass(frozen=True)
class QuantizeGptqResult:
    """The result of the jobs that quantize with a calibration set."""

    layers: int
    losses: list[ModuleLoss]
    calibration: CalibrationUsed
    resumed: int
    """Index of the first layer that this run quantized; 0 if it did not resume an earlier run."""


@dataclass(frozen=True)
class QuantizeGptqJob(Job[QuantizeGptqResult]):
    """Quantize a model in full precision with GPTQ, layer by layer, and save it.

    The calibration samples are stored in the checkpoint's folder. Finished layers are stored in the
    workspace's `unfinished`, from which GPTQModel can resume.
    """

    title = "quantize gptq"

    load: LoadModel
    """The model in full precision; its options name the tokenizer and the variables of the chat
    template."""
    settings: GptqSettings
    calibration: str
    """Path of the file with the calibration samples, in the format of `CHATS_FILE`."""
    workspace: Workspace
    most_tokens: int | None = None
    """Length in tokens at which samples are cut; None: they are not cut."""


@dataclass(frozen=True)
class QuantizeAwqJob(Job[QuantizeGptqResult]):
    """Quantize a model in full precision with AWQ, layer by layer, and save it.

    Like `QuantizeGptqJob`, but GPTQModel cannot resume from finished layers.
    """

    title = "quantize awq"

    load: LoadModel
    settings: AwqSettings
    calibration: str
    workspace: Workspace
    most_tokens: int | None = None


@dataclass(frozen=True)
class QuantizeAutoRoundJob(Job[QuantizeGptqResult]):
    """Quantize a model in full precision with AutoRound, block by block, and save it.

    A stopped run cannot be resumed.
    """

    title = "quantize autoround"

    load: LoadModel
    settings: AutoRoundSettings
    calibration: str
    workspace: Workspace
    most_tokens: int | None = None
    format: str = "auto_gptq"
    """auto-round's name for the format of the checkpoint, `auto_gptq` or `auto_awq`."""


@dataclass(frozen=True)
class QuantizeGgufJob(Job[QuantizeGptqResult]):
    """Quantize a model in full precision with AutoRound, block by block, and save a GGUF file.

    A stopped run cannot be resumed.
    """

    title = "quantize gguf"

    load: LoadModel
    settings: GgufSettings
    calibration: str
    workspace: Workspace
    most_tokens: int | None = None
