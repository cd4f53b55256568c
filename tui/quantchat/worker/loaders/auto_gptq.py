"""Load GPTQ checkpoints with auto-gptq 0.7.1, the last release, which needs transformers 4."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from quantchat.wire.messages import WEIGHTS, LoadModel
from quantchat.worker.failures import Refused
from quantchat.worker.model.devices import device_for
from quantchat.worker.model.files_check import refuse_pickled
from quantchat.worker.model.loaded import Loaded
from quantchat.worker.model.tokenizer import fast_tokenizer

_KERNELS: dict[str, dict[str, bool]] = {
    "auto": {},
    "cuda": {"disable_exllama": True, "disable_exllamav2": True},
    "exllama": {"disable_exllama": False, "disable_exllamav2": True},
    "exllama_v2": {"disable_exllamav2": False},
    "marlin": {"use_marlin": True},
    "triton": {"use_triton": True},
}
"""Key: a value of the option `kernel`; value: the arguments of auto-gptq's `from_quantized`."""


def load(command: LoadModel, stage: Callable[[str], None]) -> Loaded:
    """Load a GPTQ checkpoint from safetensors.

    `options`: `kernel`, a key of `_KERNELS`. Raises Refused for a dtype that auto-gptq does not
    support, or a checkpoint without GPTQ layers.
    """
    import torch

    try:
        from auto_gptq import AutoGPTQForCausalLM
    except ImportError as error:
        raise Refused(
            "missing_library",
            f"auto-gptq cannot be imported here: {error}",
            'name an interpreter that has auto-gptq and transformers 4: python = "…"',
        ) from error

    device = device_for(command)
    # The kernels compute in the dtype of the activations, and do not support bfloat16. On a CPU,
    # float16 is slow.
    dtype = command.dtype
    if dtype == "auto":
        dtype = "float16" if device.startswith("cuda") else "float32"
    if dtype == "bfloat16":
        raise Refused(
            "unsupported", "auto-gptq's kernels do not support bfloat16", 'use dtype = "auto"'
        )
    refuse_pickled(command.model, has_option=False)
    tokenizer = fast_tokenizer(command)
    stage(WEIGHTS)
    with _tie_after_loading():
        model = AutoGPTQForCausalLM.from_quantized(
            command.model,
            device=device,
            torch_dtype=getattr(torch, dtype),
            use_safetensors=True,
            low_cpu_mem_usage=True,
            trust_remote_code=command.trust_remote_code,
            **_KERNELS[command.option("kernel", "auto")],
        ).model
    layers = [module for module in model.modules() if hasattr(module, "qweight")]
    if not layers:
        raise Refused("bad_checkpoint", "the checkpoint has no GPTQ layers")
    first = layers[0]
    name, _ = Counter(f"{type(m).__module__.rpartition('.')[2]}" for m in layers).most_common(1)[0]
    group = f"g{first.group_size}" if first.group_size > 0 else "no groups"
    kernel = f"auto-gptq {name} {first.bits}-bit {group}"
    return Loaded(command, model, tokenizer, kernel=kernel)


@contextlib.contextmanager
def _tie_after_loading() -> Iterator[None]:
    """Within this context, make auto-gptq tie the output head to the embedding after loading.

    auto-gptq 0.7.1 ties head and embedding (lets them share one parameter) before loading.
    accelerate 1.x then looks for the shared parameter under the head's name. The checkpoint has no
    tensor of this name, so the embedding would stay empty.
    """
    from accelerate.utils import modeling

    load_checkpoint = modeling.load_checkpoint_in_model

    def load_and_tie(model: Any, *given: Any, **named: Any) -> Any:
        result = load_checkpoint(model, *given, **named)
        model.tie_weights()
        return result

    modeling.load_checkpoint_in_model = load_and_tie
    try:
        yield
    finally:
        modeling.load_checkpoint_in_model = load_checkpoint
