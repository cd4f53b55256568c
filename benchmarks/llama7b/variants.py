"""The variants that are measured, in this order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantchat.wire.messages import LoadModel


@dataclass(frozen=True)
class Source:
    """A checkpoint with random weights: GPTQ with `bits` bits, or bfloat16 if `bits` is 0."""

    bits: int = 0
    group: int = 128
    """Group size of GPTQ."""

    @property
    def name(self) -> str:
        """The name of its folder, without the shape that precedes it."""
        return f"gptq-{self.bits}-bit-g{self.group}" if self.bits else "bf16"


@dataclass(frozen=True)
class Variant:
    """A variant: an engine, its options and the checkpoint that it loads."""

    engine: str
    options: dict[str, Any]
    source: Source = Source()
    bits: int = 0
    """Bits of a weight on the device; 0 for bfloat16."""

    def load(self, folder: Path, device: str) -> LoadModel:
        """Return the command that loads the variant from `folder`."""
        return LoadModel(self.engine, str(folder), self.options, device=device)


def _gptq(kernel: str, bits: int = 4) -> Variant:
    return Variant("gptq", {"kernel": kernel}, Source(bits), bits)


def _bitsandbytes(kind: str, double: bool = False) -> Variant:
    options = {"quant_type": kind, "double_quant": double, "compute_dtype": "auto"}
    return Variant("bitsandbytes", options, bits=8 if kind == "int8" else 4)


VARIANTS = {
    "NF4": _bitsandbytes("nf4"),
    "bf16": Variant("transformers", {}),
    "GPTQ 4-bit, Marlin": _gptq("marlin"),
    "NF4, double quant": _bitsandbytes("nf4", True),
    "int8": _bitsandbytes("int8"),
    "GPTQ 4-bit, Triton": _gptq("triton"),
    "GPTQ 4-bit, ExLlamaV2": _gptq("exllama_v2"),
    "GPTQ 4-bit, automatic": _gptq("auto"),
    "FP4": _bitsandbytes("fp4"),
    "GPTQ 3-bit, automatic": _gptq("auto", 3),
    "GPTQ 4-bit, Torch": _gptq("torch"),
}
