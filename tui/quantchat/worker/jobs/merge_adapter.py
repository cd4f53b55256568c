"""Merge a LoRA adapter into its base model in full precision: the last step of a QLoRA recipe.

Dettmers et al. 2023 train the adapter on a model with NF4 weights. This job merges it into the
unquantized weights, because merging into quantized weights would round them again.
"""

from __future__ import annotations

from pathlib import Path

from quantchat.common.adapter_folder import digest
from quantchat.wire.jobs import MergeAdapterJob, MergeAdapterResult, MergedAdapter
from quantchat.worker.jobs.job_env import prepare_process, with_local_files
from quantchat.worker.loaders import load
from quantchat.worker.model.adapter import check_adapter, merge
from quantchat.worker.model.files_check import refuse_quantized
from quantchat.worker.report import Report


def run(job: MergeAdapterJob, report: Report) -> MergeAdapterResult:
    """Merge the adapter into the model, and save the merged model into the output folder.

    Raises Refused if the model is quantized or the adapter cannot be used.
    """
    report(0, 0, "importing libraries")
    prepare_process(job.workspace)
    command, output = with_local_files(job.load, report), Path(job.workspace.output)
    refuse_quantized(command.model)
    adapter = check_adapter(job.adapter)
    loaded = load(command, lambda stage: report(0, 0, stage))
    report(0, 0, "merging")
    merge(loaded.model, adapter).save_pretrained(output)
    loaded.tokenizer.save_pretrained(output)
    return MergeAdapterResult(MergedAdapter(adapter.name, adapter.kind, digest(adapter.folder)))
