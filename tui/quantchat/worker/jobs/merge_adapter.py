"""A LoRA adapter merged into the model it was trained on, in full precision (QLoRA's last step).

Dettmers et al. 2023 train it beside NF4 weights. It is merged into the ones those were made from:
what is merged into quantized weights is rounded anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quantchat.common.adapter_folder import digest
from quantchat.wire.messages import Load
from quantchat.worker.jobs import Report
from quantchat.worker.jobs.job_env import lent, local_folder, refuse_quantized, settle
from quantchat.worker.loaders import load
from quantchat.worker.model.adapter import merge, opened


def run(options: dict[str, Any], report: Report) -> dict[str, Any]:
    """Merge `adapter` into `model`, and save what it gives into the folder `output`.

    `adapter` is an absolute folder, or an id of the hub; `device`, `dtype`, `revision`, `trusted`
    (to run the model's own code) and `tokenizer`, which may be left out, are as in a profile.

    Result: `adapter`, with its `name`, its `kind` in words, and `sha256` over its two files.
    Raises Refused where the model is quantized, and for an adapter that cannot be used.
    """
    report(0, 0, "importing libraries")
    settle(options)
    folder, output = local_folder(options, report), Path(options["output"])
    refuse_quantized(folder)
    adapter = opened(options["adapter"])
    command = Load(
        "transformers",
        folder,
        lent(options),
        device=options["device"],
        dtype=options["dtype"],
        trust_remote_code=options["trusted"],
    )
    loaded = load(command, lambda stage: report(0, 0, stage))
    report(0, 0, "merging")
    merge(loaded.model, adapter).save_pretrained(output)
    loaded.tokenizer.save_pretrained(output)
    about = {"name": adapter.name, "kind": adapter.kind, "sha256": digest(adapter.folder)}
    return {"adapter": about}
