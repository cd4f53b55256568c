"""GPTQ (Frantar et al. 2022) by GPTQModel: layer by layer, on calibration chats."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from quantchat.worker.engines.loaded import choose_device, choose_dtype, load_tokenizer
from quantchat.worker.failures import Refused
from quantchat.worker.jobs import Report
from quantchat.worker.jobs.spellings import write_both
from quantchat.worker.jobs.workplace import local_folder, settle
from quantchat.worker.protocol import Load

BATCH = 4
"""Chats run through a layer at a time."""


def run(options: dict[str, Any], report: Report) -> dict[str, Any]:
    """Quantize `model` on the chats in the file `calibration`, into the folder `output`.

    `bits`, `group_size`, `desc_act`, `sym` and `damp_percent` are GPTQ's; `device`, `dtype`,
    `revision` and `trusted` (to run the model's own code) are as in a profile. The chats are put
    beside the checkpoint.

    Result: `layers`, their number, and `losses`: of each `layer` and `module` the mean squared
    error `loss` GPTQModel measured, None where it fell back to rounding. Raises Refused where the
    group size does not divide a module's width.
    """
    report(0, 0, "importing libraries")
    settle(options)
    from gptqmodel import GPTQModel, QuantizeConfig

    report(0, 0, "loading the model")
    folder, output = local_folder(options), Path(options["output"])
    model = GPTQModel.load(
        folder,
        QuantizeConfig(
            bits=options["bits"],
            group_size=options["group_size"],
            desc_act=options["desc_act"],
            sym=options["sym"],
            damp_percent=options["damp_percent"],
            device=choose_device(options["device"]),
            # The path gets into the checkpoint's config: one that says nothing of this machine.
            offload_to_disk_path="offload",
            # The default compiles an extension first (half a minute, with a compiler that may not
            # be there) to write the very same bytes.
            pack_impl="original",
        ),
        dtype=choose_dtype(options["dtype"]),
        trust_remote_code=options["trusted"],
    )
    _check_groups(model.model, options["group_size"])
    tokenizer = load_tokenizer(Load("gptq", folder, {}, trust_remote_code=options["trusted"]))
    layers = model.model.config.get_text_config().num_hidden_layers
    calibration = Path(options["calibration"])
    chats = calibration.read_text(encoding="utf-8").splitlines()

    def watch(*, layer_idx: int, module_names: list[str], **_more: Any) -> None:
        report(layer_idx + 1, layers, ", ".join(module_names))

    model.subset_callback = watch
    model.quantize(
        [_ids(tokenizer, json.loads(chat)) for chat in chats],
        batch_size=BATCH,
        calibration_data_min_length=1,
    )
    report(layers, layers, "writing the checkpoint")
    model.save(str(output))
    tokenizer.save_pretrained(output)
    write_both(output)
    shutil.copyfile(calibration, output / "calibration.jsonl")
    return {
        "layers": layers,
        "losses": [
            {"layer": row["layer"], "module": row["module"], "loss": _number(row["loss"])}
            for row in model.quant_log
        ],
    }


def _check_groups(model: Any, group_size: int) -> None:
    import torch

    if group_size < 0:
        return
    head = model.get_output_embeddings()
    for name, module in model.named_modules():
        width = getattr(module, "in_features", 0)
        if isinstance(module, torch.nn.Linear) and module is not head and width % group_size:
            fitting = [size for size in (128, 64, 32, 16) if width % size == 0]
            raise Refused(
                "unsupported",
                f"group_size {group_size} does not divide the width {width} of {name}",
                f"use group_size = {fitting[0] if fitting else -1}",
            )


def _ids(tokenizer: Any, chat: dict[str, Any]) -> dict[str, list[int]]:
    """Token ids of one line of calibration: a chat in the model's template, or plain text."""
    if "messages" not in chat:
        return {"input_ids": tokenizer(chat["text"])["input_ids"]}
    text = tokenizer.apply_chat_template(chat["messages"], tokenize=False)
    return {"input_ids": tokenizer(text, add_special_tokens=False)["input_ids"]}


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
