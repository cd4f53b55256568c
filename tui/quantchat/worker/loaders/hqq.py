"""Load models with HQQ: half-quadratic quantization (Badri and Shaji 2023), without calibration.

transformers 5 cannot quantize with HQQ. So this module loads the model on the CPU and replaces its
layers one by one. On the GPU, only one layer at a time is in full precision.
"""

from __future__ import annotations

from collections.abc import Callable

from quantchat.wire.messages import WEIGHTS, LoadModel
from quantchat.worker.import_pruning import OPTIONAL
from quantchat.worker.model.devices import device_for
from quantchat.worker.model.files_check import refuse_quantized
from quantchat.worker.model.full_precision import body_linears, half_precision
from quantchat.worker.model.loaded import Loaded, load_model
from quantchat.worker.model.tokenizer import fast_tokenizer

UNUSED = tuple(name for name in OPTIONAL if name != "hqq")


def load(command: LoadModel, stage: Callable[[str], None]) -> Loaded:
    """Load and quantize a model. `options`: `bits`, `group_size`.

    Calls `stage` for each layer. Raises Refused for a checkpoint that is quantized already.
    """
    # Imported before the stage WEIGHTS, so that the time counts as import.
    from hqq.core import quantize
    from transformers import AutoConfig

    refuse_quantized(command.model)
    bits, group = command.option("bits", 4), command.option("group_size", 64)
    device = device_for(command)
    tokenizer = fast_tokenizer(command)
    stage(WEIGHTS)
    config = AutoConfig.from_pretrained(command.model, trust_remote_code=command.trust_remote_code)
    dtype = half_precision(command, config, device)
    model = load_model(command, "cpu", dtype=dtype)
    skipped = set()
    layers = list(body_linears(model))
    for done, (name, layer) in enumerate(layers, 1):
        stage(f"quantizing layer {done} of {len(layers)}")
        if layer.weight.numel() % (8 * group):
            skipped.add(name.rpartition(".")[2])
            continue
        packed = quantize.HQQLinear(
            layer,
            quantize.BaseQuantizeConfig(nbits=bits, group_size=group, axis=1),
            compute_dtype=dtype,
            device=device,
        )
        model.set_submodule(name, packed)
    model.to(device)
    names = ", ".join(sorted(skipped))
    return Loaded(
        command,
        model,
        tokenizer,
        kernel=f"HQQLinear {bits}-bit g{group}",
        note=f"not quantized, because {8 * group} does not divide their number of weights: {names}"
        if skipped
        else "",
        slow_kernel=_SLOW,
        bits=bits,
    )


_SLOW = "HQQ's own kernel unpacks each matrix for each product; compare only its quality"
