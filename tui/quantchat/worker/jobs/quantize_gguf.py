"""Build a GGUF file with AutoRound (Cheng et al. 2023), which contains llama.cpp's converter."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from quantchat.wire.jobs import QuantizeGgufJob, QuantizeGptqResult
from quantchat.wire.messages import LoadModel
from quantchat.worker.failures import Refused, on_one_line
from quantchat.worker.jobs.calibrated_job import begin, result, samples
from quantchat.worker.jobs.quantize_autoround import round_weights
from quantchat.worker.model.loaded import choose_dtype
from quantchat.worker.report import Report

_TOKENIZER = (
    "tokenizer", "vocab", "merges", "added_tokens", "special_tokens", "chat_template",
)  # fmt: skip
"""Beginnings of the names of a tokenizer's files."""


def run(job: QuantizeGgufJob, report: Report) -> QuantizeGptqResult:
    """Quantize the model with AutoRound, and save a GGUF file into the output folder.

    Raises Refused if the converter does not know the model or its tokenizer, the model is already
    quantized, or the calibration set is empty.
    """
    # Without this, AutoRound would download llama.cpp's latest converter for a model that the
    # converter in AutoRound does not know.
    os.environ["AUTO_ROUND_GGUF_AUTO_UPDATE"] = "0"
    load = begin(job, report, "auto_round")
    from transformers import AutoModelForCausalLM

    used = samples(job, load)
    source = _with_tokenizer(load, used.tokenizer)
    check_converter(source)
    model = AutoModelForCausalLM.from_pretrained(
        source, dtype=choose_dtype(load.dtype), trust_remote_code=load.trust_remote_code
    )
    layers, form = model.config.get_text_config().num_hidden_layers, job.settings.format
    folder, tokens = round_weights(
        model, used, f"gguf:{form}", device=load.device, report=report, iters=job.settings.iters
    )
    report(layers, layers, "writing the checkpoint")
    (file,) = folder.glob("*.gguf")
    file.rename(Path(job.workspace.output) / f"model-{form.upper()}.gguf")
    return result(job, used, layers=layers, tokens=tokens)


def check_converter(folder: str) -> None:
    """Raise Refused if the converter does not know the model in `folder`, or its tokenizer.

    AutoRound itself would notice the tokenizer only when it writes the file, after quantizing.
    """
    import gguf
    from auto_round.export.export_to_gguf.llama_cpp_conversion import get_conversion

    try:
        converter = get_conversion(folder)
        hparams = converter.ModelBase.load_hparams(Path(folder), False)
        kind = converter.get_model_architecture(hparams, converter.ModelType.TEXT)
        made = converter.get_model_class(kind)(
            Path(folder), gguf.LlamaFileType.MOSTLY_F16, Path("unused.gguf"), hparams=hparams
        )
        made.set_vocab()
    except (ImportError, LookupError, NotImplementedError, TypeError, ValueError) as error:
        raise Refused(
            "unsupported",
            "llama.cpp's converter in AutoRound cannot write this model as GGUF: "
            + on_one_line(f"{type(error).__name__}: {error}", 160),
            "use --method autoround, or convert the model with llama.cpp itself",
        ) from error


def _with_tokenizer(load: LoadModel, tokenizer: Any) -> str:
    """Return a folder with the model's files and with the tokenizer to use.

    The converter reads the tokenizer from the folder of the model. If `load` names a tokenizer of
    another model, the result is a new folder with that tokenizer and links to the model's files.
    """
    if not load.option("tokenizer", ""):
        return load.model
    folder = Path("source").absolute()
    tokenizer.save_pretrained(folder)
    for file in Path(load.model).iterdir():
        if not (folder / file.name).exists() and not file.name.startswith(_TOKENIZER):
            (folder / file.name).symlink_to(file.absolute())
    return str(folder)
