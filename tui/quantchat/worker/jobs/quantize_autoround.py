"""Build a checkpoint of GPTQ's or AWQ's format with AutoRound (Cheng et al. 2023)."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from quantchat.wire.jobs import QuantizeAutoRoundJob, QuantizeGptqResult
from quantchat.worker.failures import Refused
from quantchat.worker.jobs.calibrated_job import CalibrationSamples, begin, end, samples
from quantchat.worker.jobs.layer_widths import check_groups
from quantchat.worker.model.devices import choose_device
from quantchat.worker.model.loaded import choose_dtype
from quantchat.worker.report import Report, duration

_BLOCK_WRITTEN = re.compile(r"^blk\.(\d+)\.")
"""Beginning of the line that AutoRound 0.16 logs for each tensor that it has packed for a GGUF
file; the number is that of the tensor's decoder block."""

_BLOCK_DONE = re.compile(
    r"quantized \d+/\d+ layers in the block(?:, loss iter 0: ([\d.e+-]+) -> iter \d+: ([\d.e+-]+))?"
)
"""What AutoRound 0.16 logs after it has quantized a decoder block: the mean squared error of the
block's output in the first and in the best iteration."""


def run(job: QuantizeAutoRoundJob, report: Report) -> QuantizeGptqResult:
    """Quantize the model with AutoRound, and save it into the output folder.

    Raises Refused if the group size does not divide a module's width, the model is already
    quantized, or the calibration set is empty.
    """
    load, output = begin(job, report, "auto_round"), Path(job.workspace.output)
    from transformers import AutoModelForCausalLM

    dtype = choose_dtype(load.dtype)
    model = AutoModelForCausalLM.from_pretrained(
        load.model, dtype=dtype, trust_remote_code=load.trust_remote_code
    )
    dtype = model.dtype
    check_groups(model, job.settings.group_size)
    used = samples(job, load)
    layers = model.config.get_text_config().num_hidden_layers
    settings = dataclasses.asdict(job.settings)
    folder, tokens = round_weights(
        model, used, job.format, device=load.device, report=report, **settings
    )
    report(layers, layers, "writing the checkpoint")
    for file in folder.iterdir():
        file.rename(output / file.name)
    _unquantized_in(output, dtype)
    # `widest` is left out: it matters only for GPTQ's Hessian, which AutoRound does not compute.
    return end(job, used, layers=layers, tokens=tokens)


def round_weights(
    model: Any,
    used: CalibrationSamples,
    form: str,
    *,
    device: str,
    report: Report,
    **settings: Any,
) -> tuple[Path, int]:
    """Quantize `model` with AutoRound on the calibration samples `used`.

    Return the folder that AutoRound writes, and the number of calibration tokens that it used.
    `form` is AutoRound's name of the format, and `settings` are further arguments for AutoRound.
    Raises Refused if the calibration set is empty.
    """
    from auto_round import AutoRound

    rows = equal_rows(used.chats)
    tokens = sum(map(len, rows))
    layers = model.config.get_text_config().num_hidden_layers
    report(0, layers, f"{tokens} calibration tokens")
    rounding = AutoRound(
        model,
        used.tokenizer,
        **settings,
        dataset=rows_as_tensors(rows),
        nsamples=len(rows),
        seqlen=len(rows[0]),
        device_map=choose_device(device),
        enable_torch_compile=False,  # it needs a C++ compiler
    )
    with _reported(layers, report):
        _, made = rounding.quantize_and_save("made", format=form)
    (folder,) = {Path(one) for one in ([made] if isinstance(made, str) else made)}
    return folder, tokens


def equal_rows(chats: list[list[int]]) -> list[list[int]]:
    """Return the tokens of all chats, joined and cut into rows of equal length.

    AutoRound computes several rows at once and takes no padding. The rows are as long as a chat is
    on average. A remainder at the end that is shorter than a row is dropped. Raises Refused if
    there are no tokens.
    """
    joined = [token for chat in chats for token in chat]
    if not joined:
        raise Refused("bad_calibration", "the calibration set is empty", "name another text")
    length = max(1, len(joined) // len(chats))
    return [joined[at : at + length] for at in range(0, len(joined) - length + 1, length)]


def rows_as_tensors(rows: list[list[int]]) -> list[Any]:
    """Return each row as a tensor with a batch of one, shape (1, tokens)."""
    import torch

    return [torch.tensor([row]) for row in rows]


@contextmanager
def _reported(layers: int, report: Report) -> Iterator[None]:
    """Report each block that AutoRound logs as quantized, with its loss and the time left."""
    logger, watch = logging.getLogger("autoround"), _Watch(layers, report)
    logger.addHandler(watch)
    try:
        yield
    finally:
        logger.removeHandler(watch)


class _Watch(logging.Handler):
    """Handles AutoRound's log messages, and reports the blocks that they say are finished."""

    def __init__(self, layers: int, report: Report) -> None:
        super().__init__()
        self._layers, self._report = layers, report
        self._done, self._began = 0, time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        """Report a finished block if `record` says so; AutoRound has no callback for that."""
        message, loss = record.getMessage(), ""
        if found := _BLOCK_DONE.search(message):
            done = self._done + 1
            loss = f" · loss {found[1]} → {found[2]}" if found[1] else ""
        elif written := _BLOCK_WRITTEN.match(message):
            done = int(written[1]) + 1
        else:
            return
        if done <= self._done or done > self._layers:
            return
        self._done = done
        left = (self._layers - done) * (time.monotonic() - self._began) / done
        self._report(done, self._layers, f"{duration(left)} left{loss}")


def _unquantized_in(folder: Path, dtype: Any) -> None:
    """Convert the unquantized weights of the checkpoint in `folder` to `dtype`.

    On a processor without bfloat16 instructions, AutoRound computes in float32 and also saves the
    unquantized weights as float32.
    """
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
            about = stored.metadata()
        wide = [name for name, tensor in tensors.items() if tensor.dtype == torch.float32]
        if wide and dtype != torch.float32:
            save_file({**tensors, **{name: tensors[name].to(dtype) for name in wide}}, file, about)
    config = folder / "config.json"
    body = json.loads(config.read_text(encoding="utf-8"))
    body["dtype"] = str(dtype).removeprefix("torch.")
    config.write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")
