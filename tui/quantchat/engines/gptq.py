"""Declare the engine `gptq`: GPTQ with GPTQModel, for finished checkpoints and those built here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from quantchat.engines.engine import Method
from quantchat.engines.gptqmodel import GptqModelEngine, KernelKeys, Layer, gptq_layer
from quantchat.engines.quantize import Quantize
from quantchat.estimate.model_files import TensorInfo


class Gptq(KernelKeys):
    """GPTQ with GPTQModel: a finished checkpoint, or one that is built here first (`quantize`)."""

    engine: Literal["gptq"]
    """Loads GPTQ checkpoints with GPTQModel."""
    quantize: Quantize | None = None
    """If present, the model is quantized first, and the checkpoint is cached."""


class _Engine(GptqModelEngine[Gptq]):
    variant_table = Gptq
    summary = "a finished GPTQ checkpoint, or one built here first"
    loader = "quantchat.worker.loaders.gptq"
    methods = (Method("gptq", "GPTQ 4-bit", saved={}, calibrated=True),)
    checkpoints = frozenset(("gptq",))

    def label(self, spec: Gptq) -> str:
        return f"GPTQ {spec.quantize.bits}-bit" if spec.quantize else "GPTQ"

    def cautions(self, spec: Gptq, *, cuda: bool) -> list[str]:
        return _slow_kernel(spec) if cuda else []

    def is_indexed(self, spec: Gptq) -> bool:
        return True

    def checkpoint_layer(self, tensors: Mapping[str, TensorInfo], stem: str, bits: Any) -> Layer:
        return gptq_layer(tensors, stem, bits)


ENGINE = _Engine()


def _slow_kernel(spec: Gptq) -> list[str]:
    """Return a warning if the variant's kernel on a GPU will be slow or must be compiled first."""
    # Imported here, because only `quantchat plan` needs these modules.
    from quantchat.common import cuda_driver, cuda_toolkit
    from quantchat.common.gptq_kernels import EXTENSIONS, GPTQ_ON_GPU, slow_kernel_note

    named = spec.kernel.removeprefix("gptq_")
    if named not in ("auto", *EXTENSIONS):
        cure = 'use kernel = "auto"'
        return [f"SLOW KERNEL: {slow_kernel_note(named, cure)}"]
    built_for = "" if spec.python or spec.env else cuda_driver.cuda_of_torch()
    problem = cuda_toolkit.build_problem(built_for) if built_for else ""
    if not problem:
        return []
    cure = cuda_toolkit.how_to_install(built_for)
    if named != "auto":
        return [f"{named} must be compiled, and {problem} ({cure})"]
    warning = slow_kernel_note(GPTQ_ON_GPU[-2], f"{problem}: {cure}")
    return [f"SLOW KERNEL, unless a faster one was compiled before: {warning}"]
