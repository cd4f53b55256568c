"""Jobs that make a checkpoint: dequantize, calibrate, merge an adapter, quantize."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from quantchat.wire.jobs.job import Job, Workspace
from quantchat.wire.messages import Load

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
