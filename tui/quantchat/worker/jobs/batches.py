"""Measures throughput and memory of a loaded model that decodes batches of different sizes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path

from quantchat.wire.jobs import ROUNDS_FILE, BatchJob, BatchResult, BatchRound
from quantchat.worker.decode.batch_loop import BatchLoop
from quantchat.worker.decode.caches import variant_cache
from quantchat.worker.decode.check import Check
from quantchat.worker.failures import Refused, describe
from quantchat.worker.jobs.job_env import prepare_process
from quantchat.worker.memory import resident_bytes
from quantchat.worker.model.loaded import Loaded
from quantchat.worker.report import Report
from quantchat.worker.scoring.text_scoring import load_or_refuse

_LONGEST_TO_SHORTEST = 4
"""For batches of prompts with mixed lengths: tokens of the longest prompt ÷ tokens of the
shortest."""


def run(job: BatchJob, report: Report) -> BatchResult:
    """Decode each batch once in each round, after a warm-up.

    If a batch does not fit in memory, the failure is recorded, and neither this size nor a larger
    size is tried again. Raises Refused if the model cannot be loaded, or if its context is too
    short.
    """
    report(0, 0, "importing libraries")
    prepare_process(job.workspace, background=False)
    loaded = load_or_refuse(job.model, report)
    if not isinstance(loaded, Loaded):
        raise Refused(
            "unsupported",
            f"quantchat cannot decode batches with the engine {job.model.engine}",
            "start llama-server with the model, and load-test that server",
        )
    needed = job.prompt_tokens + job.output_tokens
    if needed > loaded.context_length:
        raise Refused(
            "context_full",
            f"prompt and answer need {needed} tokens, the model takes {loaded.context_length}",
            "give a smaller --prompt-tokens or --output-tokens",
        )
    new_cache = variant_cache(loaded.command, loaded.model.config)
    loop = BatchLoop(loaded.model, loaded.input_device, Check(loaded).fault, new_cache)
    vocabulary = loaded.model.config.get_text_config().vocab_size
    loop.decode([_prompt(0, min(job.prompt_tokens, 16), vocabulary)], 2)
    sizes = list(job.batches)
    with Path(job.workspace.output, ROUNDS_FILE).open("w", encoding="utf-8") as file:
        for count in range(job.rounds):
            for place, size in enumerate(sizes):
                report(count * len(sizes) + place, job.rounds * len(sizes), f"batch of {size}")
                done = _round(loop, job, size, vocabulary)
                file.write(json.dumps(dataclasses.asdict(done)) + "\n")
                file.flush()  # a job that is stopped or killed keeps its finished batches
                if done.failure:
                    sizes = sizes[:place]
                    break
    return BatchResult(loaded.model_info(loop.name))


def lengths(batch: int, longest: int, *, mixed: bool) -> list[int]:
    """Return the length in tokens of each prompt of a batch: all `longest`, or evenly spread."""
    if not mixed or batch == 1:
        return [longest] * batch
    shortest = max(1, longest // _LONGEST_TO_SHORTEST)
    return [shortest + round((longest - shortest) * row / (batch - 1)) for row in range(batch)]


def _round(loop: BatchLoop, job: BatchJob, size: int, vocabulary: int) -> BatchRound:
    counts = lengths(size, job.prompt_tokens, mixed=job.mixed)
    prompts = [_prompt(row, count, vocabulary) for row, count in enumerate(counts)]
    _reset_peak()
    try:
        batch = loop.decode(prompts, job.output_tokens)
    except Exception as error:
        failure = describe(error)
        if failure.kind != "out_of_memory":
            raise
        return BatchRound(size, counts, 0, [], 0, _peak(), failure.reason)
    return BatchRound(size, counts, batch.prefill_ns, batch.steps_ns, batch.kv_bytes, _peak())


def _prompt(row: int, tokens: int, vocabulary: int) -> list[int]:
    """Return a prompt of `tokens` token ids, which differ from row to row of a batch.

    The ids have no meaning, because the time does not depend on it.
    """
    return [(1000 + 7919 * row + 31 * place) % vocabulary for place in range(tokens)]


def _reset_peak() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM: proc(5)


def _peak() -> int:
    """Return the highest memory in bytes since `_reset_peak`.

    With CUDA, this is the memory that torch reserved on all GPUs; otherwise, the resident memory of
    the process.
    """
    import torch

    if torch.cuda.is_available():
        return sum(torch.cuda.max_memory_reserved(one) for one in range(torch.cuda.device_count()))
    return resident_bytes()[1]
