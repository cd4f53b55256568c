"""GPTQ (Frantar et al. 2022) by GPTQModel: layer by layer, on calibration chats."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from pathlib import Path
from typing import Any

from quantchat.wire.jobs import SETTINGS
from quantchat.worker.failures import Refused
from quantchat.worker.jobs import Report
from quantchat.worker.jobs.calibration_io import ids
from quantchat.worker.jobs.config_compat import write_both
from quantchat.worker.jobs.gptqmodel_workarounds import file_digest_there, links_followed, on_one
from quantchat.worker.jobs.job_env import (
    give_freed_memory_back,
    local_folder,
    refuse_quantized,
    settle,
    tokenizer_for,
)
from quantchat.worker.jobs.layer_widths import check_groups, widest
from quantchat.worker.loaders.gptq import kind_named
from quantchat.worker.model.devices import choose_device
from quantchat.worker.model.loaded import choose_dtype

BATCH = 4
"""Chats run through a layer at a time."""

CALIBRATION = "calibration.jsonl"
"""The chats' name beside the checkpoint."""

_OFFLOAD = "offload"
"""The path gets into the checkpoint's config: one that says nothing of this machine."""


def run(options: dict[str, Any], report: Report) -> dict[str, Any]:
    """Quantize `model` on the chats in the file `calibration`, into the folder `output`.

    Of GPTQ there are `SETTINGS`; `device`, `dtype`, `revision` and `trusted` (to run the model's
    own code) are as in a profile, as are `tokenizer` and `chat_template_kwargs`, which may be left
    out. A chat is cut after `most_tokens`, where that is given. The chats are put beside the
    checkpoint. Finished layers are kept in the folder `unfinished`, where GPTQModel can go on from
    them: with models of Llama's kind, in sequence.

    Result: `layers`, their number; `losses`: of each `layer` and `module` the mean squared error
    `loss` GPTQModel measured, None where it fell back to rounding; `calibration`, with its
    `samples`, `tokens` and `sha256`, `widest`, the inputs of the widest module, and
    `chat_template_kwargs` where there are any; `resumed`, the first layer of this try (0: from the
    start).
    Raises Refused where the group size does not divide a module's width, or the model is quantized.
    """
    report(0, 0, "importing libraries")
    settle(options)
    give_freed_memory_back()  # of its layers no more is in use at a time than one
    import gptqmodel  # noqa: F401, here and not while it says that it loads the model

    report(0, 0, "loading the model")
    folder, output = local_folder(options, report), Path(options["output"])
    refuse_quantized(folder)
    device = choose_device(options["device"])
    with kind_named(folder, "load"):
        model = _loaded(folder, options, device)
    check_groups(model.model, options["group_size"])
    tokenizer = tokenizer_for(options, folder)
    layers = model.model.config.get_text_config().num_hidden_layers
    calibration = Path(options["calibration"]).read_bytes()
    most, template = options.get("most_tokens"), options.get("chat_template_kwargs", {})
    chats = [
        {"input_ids": ids(json.loads(chat), tokenizer, most, template)}
        for chat in calibration.decode().split("\n")
        if chat
    ]
    tokens, inputs = sum(len(chat["input_ids"]) for chat in chats), widest(model.model)
    report(0, layers, f"{tokens} calibration tokens, the widest module has {inputs} inputs")
    watch = _Watch(layers, report)
    model.subset_callback = watch
    with kind_named(folder, "quantize"):
        _quantize(model, chats, device, Path(options["unfinished"]))
    report(layers, layers, "writing the checkpoint")
    with kind_named(folder, "write"):
        model.save(str(output))
    tokenizer.save_pretrained(output)
    write_both(output)
    (output / CALIBRATION).write_bytes(calibration)
    return {
        "layers": layers,
        "losses": [
            {"layer": row["layer"], "module": row["module"], "loss": _number(row["loss"])}
            for row in model.quant_log
        ],
        "calibration": {
            "samples": len(chats),
            "tokens": tokens,
            "sha256": hashlib.sha256(calibration).hexdigest(),
            "widest": inputs,
            **({"chat_template_kwargs": template} if template else {}),
        },
        "resumed": watch.first,
    }


def _loaded(folder: str, options: dict[str, Any], device: str) -> Any:
    """The model in `folder`, ready to be quantized on `device`."""
    from gptqmodel import GPTQModel, QuantizeConfig

    settings = QuantizeConfig(
        **{name: options[name] for name in SETTINGS},
        device=device,
        offload_to_disk_path=_OFFLOAD,
        # The default compiles an extension first (half a minute, with a compiler that may not
        # be there) to write the very same bytes.
        pack_impl="original",
    )
    return GPTQModel.load(
        folder,
        settings,
        dtype=choose_dtype(options["dtype"]),
        trust_remote_code=options["trusted"],
    )


def _quantize(model: Any, chats: list[dict[str, list[int]]], device: str, unfinished: Path) -> None:
    """Quantize on `device`, from the last layer kept in `unfinished` on, and keep each there."""
    from gptqmodel.looper.checkpoint_store import CheckpointConfig, CheckpointError
    from gptqmodel.looper.gptq_checkpoint import validate_checkpoint_support

    for left in unfinished.glob("attempt-*"):  # scratch of a try that was killed
        shutil.rmtree(left)
    try:
        validate_checkpoint_support(model)
        keep = CheckpointConfig(path=unfinished)
    except NotImplementedError:
        keep = None
    try:
        with links_followed(), file_digest_there(), on_one(device):
            model.quantize(chats, batch_size=BATCH, calibration_data_min_length=1, checkpoint=keep)
    except CheckpointError as error:
        for left in unfinished.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        raise Refused(
            "internal",
            f"what is kept of an earlier try does not fit: {error}",
            "it is cleared away; start again",
        ) from error
    if keep:
        shutil.rmtree(_OFFLOAD, ignore_errors=True)
        Path(_OFFLOAD).symlink_to(model.quantize_config.offload_to_disk_path)
        model.quantize_config.offload_to_disk_path = _OFFLOAD


class _Watch:
    """Hears from GPTQModel before and after each group of modules, and tells how far it is."""

    def __init__(self, layers: int, report: Report) -> None:
        self._layers = layers
        self._report = report
        self._began = 0.0
        self._groups_done = 0
        self._left = ""
        self._losses = ""
        self.first = 0

    def __call__(
        self,
        *,
        stage: str,
        layer_idx: int,
        subset_index: int,
        subset_total: int,
        module_names: list[str],
        processor: Any,
        **_more: Any,
    ) -> None:
        if not self._began:
            self._began, self.first = time.monotonic(), layer_idx
        if stage == "quant_complete":
            self._groups_done += 1
            self._losses = self._found(layer_idx, module_names, processor)
            left = self._layers * subset_total - (layer_idx * subset_total + subset_index + 1)
            each_s = (time.monotonic() - self._began) / self._groups_done
            self._left = f"{_duration(left * each_s)} left"
        # What is told last of time and losses stays while the next group is worked on. The time
        # comes first, since a narrow column cuts off the end.
        under_way = "" if stage == "quant_complete" else ", ".join(map(_short, module_names))
        detail = " · ".join(filter(None, (self._left, under_way, self._losses)))
        self._report(layer_idx + 1, self._layers, detail)

    def _found(self, layer: int, modules: list[str], processor: Any) -> str:
        """`loss of q_proj 0.012, k_proj 0.003`, as far as it is known."""
        # GPTQModel 7.6 hands over the bound method `processor.name` where it means the processor.
        rows = getattr(getattr(processor, "__self__", processor), "log", [])
        found = [
            f"{_short(row['module'])} {loss:.2g}"
            for row in list(rows)
            if row["layer"] == layer and row["module"] in modules
            if (loss := _number(row["loss"])) is not None
        ]
        return f"loss of {', '.join(found)}" if found else ""


def _short(module: str) -> str:
    return module.rpartition(".")[2]


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
