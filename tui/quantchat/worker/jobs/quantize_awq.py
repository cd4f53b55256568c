"""Build an AWQ checkpoint (Lin et al. 2023) with GPTQModel, in the same way as GPTQ checkpoints."""

from __future__ import annotations

from quantchat.wire.jobs import QuantizeAwqJob, QuantizeGptqResult
from quantchat.worker.jobs.quantize_gptq import quantize
from quantchat.worker.report import Report


def run(job: QuantizeAwqJob, report: Report) -> QuantizeGptqResult:
    """Quantize the model with AWQ, and save it into the output folder. Raises Refused."""
    return quantize(job, report)
