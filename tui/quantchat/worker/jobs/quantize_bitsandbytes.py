"""A bitsandbytes checkpoint: NF4, FP4 (QLoRA, Dettmers et al. 2023) or LLM.int8(), saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quantchat.wire.messages import Load
from quantchat.worker.jobs import Report
from quantchat.worker.jobs.config_compat import write_both
from quantchat.worker.jobs.job_env import lent, local_folder, refuse_quantized, settle
from quantchat.worker.loaders import bitsandbytes
from quantchat.worker.model.tokenizer import fetch_lent


def run(options: dict[str, Any], report: Report) -> dict[str, Any]:
    """Quantize `model` on loading, and save it into the folder `output`.

    `quant_type`, `double_quant`, `compute_dtype`, `device`, `dtype`, `revision`, `trusted` (to
    run the model's own code) and `tokenizer`, which may be left out, are as in a profile.

    It is saved before the first forward pass: on a CPU that packs the weights anew, in place, and
    what is saved after it loads again as garbage (bitsandbytes 0.50).

    Result: `kernel`, the class and kind of its layers. Raises Refused where it is quantized.
    """
    report(0, 0, "importing libraries")
    settle(options)
    folder, output = local_folder(options, report), Path(options["output"])
    refuse_quantized(folder)
    command = Load(
        "bitsandbytes",
        folder,
        {
            **{name: options[name] for name in ("quant_type", "double_quant", "compute_dtype")},
            **lent(options),
        },
        device=options["device"],
        dtype=options["dtype"],
        trust_remote_code=options["trusted"],
    )
    loaded = bitsandbytes.load(fetch_lent(command), lambda stage: report(0, 0, stage))
    report(0, 0, "writing the checkpoint")
    loaded.model.save_pretrained(output)
    loaded.tokenizer.save_pretrained(output)
    write_both(output)
    return {"kernel": loaded.kernel}
