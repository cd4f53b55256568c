"""The table `[variants.quantize]`: the settings for building a calibrated checkpoint."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator, model_validator

from quantchat.engines.table import Line, Table, is_path

_DATA_SET = re.compile(
    r"hub:[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?(:[\w.+\[\]%-]+){0,2}", re.ASCII
)


GgufFormat = Literal[
    "q2_k_s", "q3_k_s", "q3_k_m", "q3_k_l", "q4_0", "q4_1", "q4_k_s", "q4_k_m", "q5_0", "q5_1",
    "q5_k_s", "q5_k_m", "q6_k", "q8_0",
]  # fmt: skip


class Calibration(Table):
    """Settings of the calibration set from which a checkpoint is built: its text and its length."""

    calibration: Line | None = Field(None, examples=["./chats.jsonl", "hub:org/name:train:text"])
    """The calibration text: a file with plain text or JSONL (`{"messages": […]}` or `{"text": …}`
    per line), or a dataset on the Hugging Face hub, `hub:org/name[:split[:column]]`. By default the
    model's own answers to built-in prompts, in its chat template."""
    samples: int | None = Field(None, ge=1, le=4096, examples=[256])
    """Number of calibration chats or pieces of text. Default on a GPU: enough for four tokens per
    input of the model's widest module, at least 32; on a CPU 32."""
    sample_tokens: int | None = Field(None, ge=16, le=8192, examples=[512])
    """Longest calibration answer or piece of text, in tokens. Default: 512 on a GPU, 160 on a
    CPU."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Seed for choosing the calibration prompts or pieces of text."""

    @field_validator("calibration")
    @classmethod
    def _file_or_data_set(cls, value: str | None) -> str | None:
        if value is not None and not is_path(value) and not _DATA_SET.fullmatch(value):
            raise ValueError(
                "must be a file, which begins with ./, ../, ~ or /, or a data set, "
                "hub:org/name[:split[:column]]"
            )
        return value

    @property
    def calibration_file(self) -> str | None:
        """The calibration file; None without `calibration` or for a data set."""
        return self.calibration if self.calibration and is_path(self.calibration) else None


class InGroups(Calibration):
    """Settings for building a checkpoint with calibration and with a group size."""

    if TYPE_CHECKING:
        bits: int  # each method's own table allows only certain values

    group_size: int = Field(128, ge=-1, le=2**16)
    """Number of weights that share a scale; -1: a whole row. It must divide the layers' widths."""

    @field_validator("group_size")
    @classmethod
    def _group_size(cls, value: int) -> int:
        if value == 0:
            raise ValueError("must be -1 (a whole row) or a positive number such as 128")
        return value


class Quantize(InGroups):
    """Build a GPTQ checkpoint of the variant's model before it is first loaded."""

    bits: Literal[2, 3, 4, 8] = 4
    """Bits per weight."""
    desc_act: bool = False
    """Quantize the columns in the order of their activations, largest first (act-order)."""
    act_group_aware: bool = True
    """Quantize columns in the order of their activations, but keep each column in its group
    (group-aware reordering), which does not slow down decoding. Ignored with `desc_act`."""
    sym: bool = True
    """Symmetric quantization, which the fast kernels need."""
    damp_percent: float = Field(0.05, gt=0, lt=1)
    """Damping added to the Hessian's diagonal, as a share of its mean."""
    true_sequential: bool = True
    """Quantize the modules of a layer one after another, each with the inputs that the quantized
    modules before it produce. If off, all modules of a layer use the same inputs, and a stopped run
    cannot be resumed."""


class QuantizeAwq(InGroups):
    """Build an AWQ checkpoint of the variant's model before it is first loaded."""

    bits: Literal[4] = 4
    """Bits per weight; the kernels support only 4."""
    sym: bool = False
    """Symmetric quantization, without a zero point for each group."""


class QuantizeAutoRound(InGroups):
    """Build an AutoRound checkpoint of the variant's model before it is first loaded."""

    bits: Literal[2, 3, 4, 8] = 4
    """Bits per weight."""
    sym: bool = True
    """Symmetric quantization, which the fast kernels need."""
    format: Literal["auto_gptq", "auto_awq"] = "auto_gptq"
    """Format of the checkpoint, as auto-round names it. `auto_gptq`: GPTQ's. `auto_awq`: AWQ's at
    4 bits, for programs that load only AWQ."""
    iters: int = Field(200, ge=1, le=10_000)
    """Steps of optimization for each block of the model. More steps take longer, and give a smaller
    error."""

    @model_validator(mode="after")
    def _bits_of_awq(self) -> QuantizeAutoRound:
        if self.format == "auto_awq" and self.bits != 4:
            raise ValueError(
                f'the format auto_awq has 4 bits, not {self.bits}; use format = "auto_gptq"'
            )
        return self


class QuantizeGguf(Calibration):
    """Build a GGUF file of the variant's model with AutoRound before it is first loaded."""

    format: GgufFormat = "q4_k_m"
    """Format of the GGUF file, as llama.cpp names it. The formats with `k` need layers whose widths
    are multiples of 256; other layers get `q5_0` or `q8_0`."""
    iters: int = Field(0, ge=0, le=10_000)
    """Steps of optimization for each block of the model. 0: search the scales instead, as
    auto-round recommends for GGUF files."""
