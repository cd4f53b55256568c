"""The table `[variants.quantize]`: the settings for building a GPTQ or AWQ checkpoint."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from quantchat.engines.table import Line, Table, is_path

_DATA_SET = re.compile(
    r"hub:[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?(:[\w.+\[\]%-]+){0,2}", re.ASCII
)


class Calibration(Table):
    """How a checkpoint is built here with calibration: the text, and how much of it."""

    if TYPE_CHECKING:
        bits: int  # a literal in each method's own table

    group_size: int = Field(128, ge=-1, le=2**16)
    """Weights that share one scale; -1 is a whole row. It must divide the layers' widths."""
    calibration: Line | None = Field(None, examples=["./chats.jsonl", "hub:org/name:train:text"])
    """What to calibrate on: a file, plain text or JSONL (`{"messages": […]}` or `{"text": …}` a
    line), or a data set on the Hugging Face hub, `hub:org/name[:split[:column]]`. Without it, the
    model's own chats: its answers to varied prompts, in its template."""
    samples: int | None = Field(None, ge=1, le=4096, examples=[256])
    """Calibration chats, or pieces of text. Without it, on a GPU as many as it takes for four
    tokens to each input of the model's widest module, 32 at least; on a CPU 32."""
    sample_tokens: int | None = Field(None, ge=16, le=8192, examples=[512])
    """Longest calibration answer, or piece of text, in tokens. Without it 512 on a GPU, 160 on a
    CPU."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Seed of the choice of calibration prompts, or pieces of text."""

    @field_validator("group_size")
    @classmethod
    def _group_size(cls, value: int) -> int:
        if value == 0:
            raise ValueError("must be -1 (a whole row) or a positive number such as 128")
        return value

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


class Quantize(Calibration):
    """Build a GPTQ checkpoint here first, from the model that the variant names."""

    bits: Literal[2, 3, 4, 8] = 4
    """Bits per weight."""
    desc_act: bool = False
    """Quantize columns in order of falling activation (act-order)."""
    act_group_aware: bool = True
    """Order columns by activation inside what the groups allow, which costs nothing when it runs;
    without effect where `desc_act` is on."""
    sym: bool = True
    """Symmetric quantization, which the fast kernels want."""
    damp_percent: float = Field(0.05, gt=0, lt=1)
    """Damping added to the Hessian's diagonal, as a share of its mean."""
    true_sequential: bool = True
    """Quantize the modules of a layer one after the other, each on what those before it give.
    Off: all at once, and nothing to go on from when it is stopped."""


class QuantizeAwq(Calibration):
    """Build an AWQ checkpoint here first, from the model that the variant names."""

    bits: Literal[4] = 4
    """Bits per weight; the kernels take 4 alone."""
    sym: bool = False
    """Symmetric quantization, without a zero for each group."""
