"""Runs a job with the module of its type."""

from __future__ import annotations

from quantchat.wire.jobs import (
    AnyJob,
    BatchJob,
    CalibrateJob,
    CollectSamplesJob,
    DequantizeJob,
    EvaluateJob,
    InspectKernelsJob,
    JobResult,
    LoadTestJob,
    LocateLossJob,
    MergeAdapterJob,
    QuantizeAutoRoundJob,
    QuantizeAwqJob,
    QuantizeBitsAndBytesJob,
    QuantizeGgufJob,
    QuantizeGptqJob,
    ScoreJob,
)
from quantchat.worker import import_pruning, loaders
from quantchat.worker.report import Report


def hide_unused(job: AnyJob) -> None:
    """Hide libraries that `job` does not need; call it in a new process, before `run`."""
    match job:
        case BatchJob():
            loaders.hide_unused(job.model)
        case CalibrateJob() | MergeAdapterJob() | QuantizeBitsAndBytesJob() | ScoreJob():
            loaders.hide_unused(job.load)
        case DequantizeJob():
            import_pruning.hide(import_pruning.OPTIONAL)
        case CollectSamplesJob() if not job.load.trust_remote_code and not job.dataset:
            import_pruning.hide(import_pruning.OPTIONAL)
        case QuantizeAwqJob() | QuantizeGptqJob() if not job.load.trust_remote_code:
            import_pruning.hide(import_pruning.QUANTIZERS)


def run(job: AnyJob, report: Report) -> JobResult:
    """Run `job` and return its result. Raises Refused, and whatever the libraries raise.

    Imports only the job's own module, because each module imports other libraries.
    """
    match job:
        case BatchJob():
            from quantchat.worker.jobs import batches

            return batches.run(job, report)
        case CalibrateJob():
            from quantchat.worker.jobs import calibrate

            return calibrate.run(job, report)
        case CollectSamplesJob():
            from quantchat.worker.jobs import collect

            return collect.run(job, report)
        case DequantizeJob():
            from quantchat.worker.jobs import dequantize

            return dequantize.run(job, report)
        case EvaluateJob():
            from quantchat.worker.jobs import evaluate

            return evaluate.run(job, report)
        case InspectKernelsJob():
            from quantchat.worker.jobs import inspect_kernels

            return inspect_kernels.run(job, report)
        case LoadTestJob():
            from quantchat.worker.jobs import load_test

            return load_test.run(job, report)
        case LocateLossJob():
            from quantchat.worker.jobs import locate

            return locate.run(job, report)
        case MergeAdapterJob():
            from quantchat.worker.jobs import merge_adapter

            return merge_adapter.run(job, report)
        case QuantizeBitsAndBytesJob():
            from quantchat.worker.jobs import quantize_bitsandbytes

            return quantize_bitsandbytes.run(job, report)
        case QuantizeAutoRoundJob():
            from quantchat.worker.jobs import quantize_autoround

            return quantize_autoround.run(job, report)
        case QuantizeAwqJob():
            from quantchat.worker.jobs import quantize_awq

            return quantize_awq.run(job, report)
        case QuantizeGgufJob():
            from quantchat.worker.jobs import quantize_gguf

            return quantize_gguf.run(job, report)
        case QuantizeGptqJob():
            from quantchat.worker.jobs import quantize_gptq

            return quantize_gptq.run(job, report)
        case ScoreJob():
            from quantchat.worker.jobs import score

            return score.run(job, report)
