"""Build a checkpoint with GPTQModel, layer by layer.

The method is GPTQ (Frantar et al. 2022) or AWQ (Lin et al. 2023).
"""

from __future__ import annotations

import contextlib
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from quantchat.wire.jobs import (
    AwqSettings,
    GptqSettings,
    ModuleLoss,
    QuantizeAwqJob,
    QuantizeGptqJob,
    QuantizeGptqResult,
)
from quantchat.wire.messages import LoadModel
from quantchat.worker.failures import Refused
from quantchat.worker.jobs.calibrated_job import begin, end, samples
from quantchat.worker.jobs.gptqmodel_workarounds import add_file_digest, follow_links, only_on
from quantchat.worker.jobs.layer_widths import check_awq, check_groups, widest
from quantchat.worker.loaders import without_needless_compiler
from quantchat.worker.loaders.gptq import name_model_kind
from quantchat.worker.model.devices import choose_device
from quantchat.worker.model.loaded import choose_dtype
from quantchat.worker.report import Report, duration

BATCH = 4
"""Number of samples to run through a layer at once."""

_NO_LOSS = "not applicable"
"""With AWQ, what GPTQModel records in place of a loss for a module that shares no scales with other
modules."""

_OFFLOAD = "offload"
"""Folder to which GPTQModel offloads layers. A relative path, because GPTQModel writes it into the
checkpoint's config."""


def run(job: QuantizeGptqJob, report: Report) -> QuantizeGptqResult:
    """Quantize the model with GPTQ, and save it into the output folder. Raises Refused."""
    return quantize(job, report)


def quantize(job: QuantizeGptqJob | QuantizeAwqJob, report: Report) -> QuantizeGptqResult:
    """Quantize the model on the calibration samples, and save it into the output folder.

    The samples are copied into that folder too. With GPTQ, finished layers are stored in the
    workspace's `unfinished`, and the next job resumes from them, if GPTQModel supports that for the
    model (as for Llama). Raises Refused if the group size does not divide a module's width, or if
    the model is already quantized.
    """
    load = begin(job, report, "gptqmodel")
    device = choose_device(load.device)
    with name_model_kind(load.model, "load"):
        model = _loaded(load, job.settings, device)
    check_groups(model.model, job.settings.group_size)
    if isinstance(job.settings, AwqSettings):
        blocks = model.simple_layer_modules(model.model.config, model.quantize_config)
        check_awq(model.model, [name for names in blocks for name in names])
    used = samples(job, load)
    layers = model.model.config.get_text_config().num_hidden_layers
    tokens, inputs = used.tokens, widest(model.model)
    report(0, layers, f"{tokens} calibration tokens, the widest module has {inputs} inputs")
    progress = _Progress(layers, report)
    model.subset_callback = progress
    chats = [{"input_ids": one} for one in used.chats]
    with name_model_kind(load.model, "quantize"):
        _quantize(model, chats, device, Path(job.workspace.unfinished))
    report(layers, layers, "writing the checkpoint")
    with name_model_kind(load.model, "write"):
        model.save(job.workspace.output)
    return end(
        job,
        used,
        layers=layers,
        tokens=tokens,
        widest=inputs,
        losses=[
            ModuleLoss(row["layer"], row["module"], _number(row["loss"]))
            for row in model.quant_log
            if row["loss"] != _NO_LOSS
        ],
        resumed=progress.first,
    )


def _loaded(load: LoadModel, settings: GptqSettings | AwqSettings, device: str) -> Any:
    """Load the model with GPTQModel, for quantizing on `device`."""
    with without_needless_compiler(load):
        from gptqmodel import GPTQModel, QuantizeConfig
        from gptqmodel.quantization.config import AWQConfig

        kind = AWQConfig if isinstance(settings, AwqSettings) else QuantizeConfig
        config = kind(
            **asdict(settings),
            device=device,
            offload_to_disk_path=_OFFLOAD,
            # The default compiles an extension first, which takes half a minute and needs a
            # compiler, and then writes exactly the same bytes.
            pack_impl="original",
        )
        return GPTQModel.load(
            load.model,
            config,
            dtype=choose_dtype(load.dtype),
            trust_remote_code=load.trust_remote_code,
        )


def _quantize(model: Any, chats: list[dict[str, list[int]]], device: str, unfinished: Path) -> None:
    """Quantize on `device`; resume from the layers stored in `unfinished`, and store new layers."""
    from gptqmodel import BACKEND
    from gptqmodel.looper.checkpoint_store import CheckpointConfig, CheckpointError
    from gptqmodel.looper.gptq_checkpoint import validate_checkpoint_support
    from gptqmodel.quantization.config import METHOD

    for left in unfinished.glob("attempt-*"):  # scratch files of a job that was killed
        shutil.rmtree(left)
    awq, keep = model.quantize_config.method == METHOD.AWQ, None
    # GPTQModel 7.6 stores layers of AWQ too, but refuses to resume from them: "schema differs".
    with contextlib.suppress(NotImplementedError):
        if not awq:
            validate_checkpoint_support(model)
            keep = CheckpointConfig(path=unfinished)
    try:
        with follow_links(), add_file_digest(), only_on(device):
            model.quantize(
                chats,
                batch_size=BATCH,
                calibration_data_min_length=1,
                checkpoint=keep,
                # The default for AWQ is a layer for GPUs only; this one writes the same bytes.
                backend=BACKEND.AWQ_TORCH if awq else None,
            )
    except CheckpointError as error:
        for left in unfinished.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        raise Refused(
            "internal",
            f"the stored layers of an earlier job cannot be used: {error}",
            "they have been removed; start again",
        ) from error
    if keep:
        # GPTQModel has then offloaded to a folder of its own. Make `_OFFLOAD` a link to it.
        shutil.rmtree(_OFFLOAD, ignore_errors=True)
        Path(_OFFLOAD).symlink_to(model.quantize_config.offload_to_disk_path)
        model.quantize_config.offload_to_disk_path = _OFFLOAD


class _Progress:
    """Reports progress. GPTQModel calls this object before and after each group of modules."""

    def __init__(self, layers: int, report: Report) -> None:
        self._layers = layers
        self._report = report
        self._began = 0.0
        self._groups_done = 0
        self._left = ""
        self._losses = ""
        self.first = 0
        """Index of the first layer that this job quantized."""

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
            self._losses = self._losses_of(layer_idx, module_names, processor)
            left = self._layers * subset_total - (layer_idx * subset_total + subset_index + 1)
            each_s = (time.monotonic() - self._began) / self._groups_done
            self._left = f"{duration(left * each_s)} left"
        # The remaining time and the last losses stay on screen during the next group. The time
        # comes first, because a narrow column cuts off the end.
        under_way = "" if stage == "quant_complete" else ", ".join(map(_short, module_names))
        detail = " · ".join(filter(None, (self._left, under_way, self._losses)))
        self._report(layer_idx + 1, self._layers, detail)

    def _losses_of(self, layer: int, modules: list[str], processor: Any) -> str:
        """Return the known losses of `modules`: `loss of q_proj 0.012, k_proj 0.003`."""
        # GPTQModel 7.6 passes the bound method `processor.name` instead of the processor.
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


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
