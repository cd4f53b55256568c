"""Load models with bitsandbytes: NF4, FP4 (QLoRA, Dettmers et al. 2023) and LLM.int8()."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quantchat.common.bitsandbytes_repacking import is_repackable
from quantchat.wire.messages import WEIGHTS, LoadModel
from quantchat.worker.failures import Refused
from quantchat.worker.import_pruning import OPTIONAL
from quantchat.worker.loaders.bitsandbytes_probe import kernels as kernels
from quantchat.worker.model.contents import Contents
from quantchat.worker.model.devices import device_for
from quantchat.worker.model.full_precision import (
    half_precision,
    modules_in_full_precision,
    without_weights,
)
from quantchat.worker.model.loaded import Loaded, choose_dtype, load_model
from quantchat.worker.model.tokenizer import fast_tokenizer

UNUSED = OPTIONAL

_NOT_QUANTIZED = "not quantized"


def load(command: LoadModel, stage: Callable[[str], None]) -> Loaded:
    """Load and quantize a model, or load a quantized bitsandbytes checkpoint.

    `options`: `quant_type` (nf4, fp4, int8), `double_quant`, `compute_dtype`. Raises Refused for a
    checkpoint whose quantization differs from `quant_type`.
    """
    import bitsandbytes
    from transformers import AutoConfig, BitsAndBytesConfig

    device = device_for(command)
    tokenizer = fast_tokenizer(command)
    stage(WEIGHTS)
    config = AutoConfig.from_pretrained(
        command.model,
        trust_remote_code=command.trust_remote_code,
    )
    dtype, kind = half_precision(command, config, device), command.option("quant_type", "")
    quantization = _quantization(command, dtype, BitsAndBytesConfig)
    quantized = getattr(config, "quantization_config", None)
    if quantized is not None:
        _check_quantized(quantized, kind)
        quantization = None
    else:
        skipped, _ = modules_in_full_precision(without_weights(command, config))
        quantization.llm_int8_skip_modules = skipped
    model = load_model(
        command,
        device,
        dtype=dtype,
        **({} if quantization is None else {"quantization_config": quantization}),
    )
    _unpack_odd_widths(model, bitsandbytes.nn)
    kernel = _kernel(model, bitsandbytes.nn)
    note = _nothing_quantized(model, kernel)
    bits = 8 if kind == "int8" else 4
    return Loaded(command, model, tokenizer, kernel=kernel, note=note, bits=bits)


def _quantization(command: LoadModel, dtype: Any, config: Any) -> Any:
    kind = command.option("quant_type", "")
    if kind == "int8":
        return config(load_in_8bit=True)
    compute = choose_dtype(command.option("compute_dtype", "auto"))
    return config(
        load_in_4bit=True,
        bnb_4bit_quant_type=kind,
        bnb_4bit_use_double_quant=command.option("double_quant", True),
        bnb_4bit_compute_dtype=dtype if compute == "auto" else compute,
    )


def _check_quantized(quantized: Any, wanted: str) -> None:
    """Raise Refused if the checkpoint's quantization differs from `wanted`, the `quant_type`."""
    body = quantized if isinstance(quantized, dict) else quantized.to_dict()
    if body.get("quant_method") not in (None, "bitsandbytes"):
        raise Refused(
            "unsupported",
            f"the checkpoint is already quantized ({body['quant_method']})",
            "name the unquantized model, or use the engine of that method",
        )
    kind = "int8" if body.get("load_in_8bit") else body.get("bnb_4bit_quant_type", "fp4")
    if kind != wanted:
        raise Refused(
            "unsupported",
            f"the checkpoint is {kind}, but the variant has quant_type = {wanted!r}",
            f'write quant_type = "{kind}", or name the unquantized model',
        )


def _unpack_odd_widths(model: Any, nn: Any) -> None:
    """Keep bitsandbytes from repacking 4-bit layers whose widths it cannot repack.

    On a CPU with AVX512-BF16, bitsandbytes repacks 4-bit weights for a faster kernel, which fails
    for some widths (`is_repackable`). Such a layer then computes as on a CPU without AVX512-BF16.
    """
    for layer in model.modules():
        if not isinstance(layer, nn.Linear4bit):
            continue
        if not is_repackable(layer.out_features, layer.in_features):
            layer.support_avx512bf16_for_cpu = False


def _kernel(model: Any, nn: Any) -> str:
    """Return the name of the kernel in the loaded layers, which may not be the requested kernel."""
    for module in model.modules():
        if isinstance(module, nn.Linear8bitLt):
            return "Linear8bitLt int8"
        if isinstance(module, nn.Linear4bit):
            state = module.weight.quant_state
            double = "double quant" if state.nested else "no double quant"
            return f"Linear4bit {state.quant_type}, {double}"
    return _NOT_QUANTIZED


def _nothing_quantized(model: Any, kernel: str) -> str:
    """Return a note if bitsandbytes quantized no layer of the model; otherwise empty."""
    if kernel != _NOT_QUANTIZED:
        return ""
    layers = Contents.of(model).linears.most_common(1)
    named = f": its layers are {layers[0][0]}" if layers else ""
    return f"nothing was quantized{named}, because bitsandbytes only quantizes plain linear layers"
