"""Jobs of a worker besides chatting: the dataclasses of each job's request and result.

A job is a frozen dataclass that the main process sends; the worker answers with the result type
that the job names (`ScoreJob(Job[ScoreResult])`), or with `Failed`. Job and result are sent through
the pipe with their class names, and are decoded as strictly as every message. Folders and files are
absolute paths. Token counts are those of the model's own tokenizer.
"""

from __future__ import annotations

import typing
from typing import Any

from quantchat.wire.jobs.checkpoints import (
    CHATS_FILE,
    CHATS_TEXT_FILE,
    CPU_SAMPLE_TOKENS,
    GPU_SAMPLE_TOKENS,
    MIN_SAMPLES,
    AutoRoundSettings,
    AwqSettings,
    CalibrateJob,
    CalibrateResult,
    CalibrationPart,
    CalibrationUsed,
    CollectSamplesJob,
    CollectSamplesResult,
    DequantizeJob,
    DequantizeResult,
    GgufSettings,
    GptqSettings,
    MergeAdapterJob,
    MergeAdapterResult,
    MergedAdapter,
    ModuleLoss,
    QuantizeAutoRoundJob,
    QuantizeAwqJob,
    QuantizeBitsAndBytesJob,
    QuantizeBitsAndBytesResult,
    QuantizeGgufJob,
    QuantizeGptqJob,
    QuantizeGptqResult,
)
from quantchat.wire.jobs.job import Job, Result, Workspace
from quantchat.wire.jobs.kernels import (
    COMPILES,
    MUST_COMPILE,
    READY,
    UNUSABLE,
    BuildTools,
    CudaDevice,
    InspectKernelsJob,
    InspectKernelsResult,
    Kernel,
    KernelState,
    Loader,
    TorchInfo,
)
from quantchat.wire.jobs.load_test import (
    PROGRESS_FILE,
    ROUNDS_FILE,
    BatchJob,
    BatchResult,
    BatchRound,
    LoadTestJob,
    LoadTestLevel,
    LoadTestProgress,
    LoadTestResult,
    LoadTestRound,
    RequestTimes,
)
from quantchat.wire.jobs.score import (
    Fit,
    LocateLossJob,
    LocateLossResult,
    PartDivergence,
    ScoreJob,
    ScoreResult,
)
from quantchat.wire.jobs.tasks import EvaluateJob, EvaluateResult, TaskFigure, TaskResult

__all__ = [
    "CHATS_FILE",
    "CHATS_TEXT_FILE",
    "COMPILES",
    "CPU_SAMPLE_TOKENS",
    "GPU_SAMPLE_TOKENS",
    "JOBS",
    "MIN_SAMPLES",
    "MUST_COMPILE",
    "PROGRESS_FILE",
    "READY",
    "ROUNDS_FILE",
    "UNUSABLE",
    "AnyJob",
    "AutoRoundSettings",
    "AwqSettings",
    "BatchJob",
    "BatchResult",
    "BatchRound",
    "BuildTools",
    "CalibrateJob",
    "CalibrateResult",
    "CalibrationPart",
    "CalibrationUsed",
    "CollectSamplesJob",
    "CollectSamplesResult",
    "CudaDevice",
    "DequantizeJob",
    "DequantizeResult",
    "EvaluateJob",
    "EvaluateResult",
    "Fit",
    "GgufSettings",
    "GptqSettings",
    "InspectKernelsJob",
    "InspectKernelsResult",
    "Job",
    "JobResult",
    "Kernel",
    "KernelState",
    "LoadTestJob",
    "LoadTestLevel",
    "LoadTestProgress",
    "LoadTestResult",
    "LoadTestRound",
    "Loader",
    "LocateLossJob",
    "LocateLossResult",
    "MergeAdapterJob",
    "MergeAdapterResult",
    "MergedAdapter",
    "ModuleLoss",
    "PartDivergence",
    "QuantizeAutoRoundJob",
    "QuantizeAwqJob",
    "QuantizeBitsAndBytesJob",
    "QuantizeBitsAndBytesResult",
    "QuantizeGgufJob",
    "QuantizeGptqJob",
    "QuantizeGptqResult",
    "RequestTimes",
    "Result",
    "ScoreJob",
    "ScoreResult",
    "TaskFigure",
    "TaskResult",
    "TorchInfo",
    "Workspace",
]

AnyJob = (
    DequantizeJob
    | CalibrateJob
    | CollectSamplesJob
    | MergeAdapterJob
    | QuantizeBitsAndBytesJob
    | QuantizeGgufJob
    | QuantizeGptqJob
    | QuantizeAwqJob
    | QuantizeAutoRoundJob
    | ScoreJob
    | LocateLossJob
    | EvaluateJob
    | LoadTestJob
    | BatchJob
    | InspectKernelsJob
)
JobResult = (
    DequantizeResult
    | CalibrateResult
    | CollectSamplesResult
    | MergeAdapterResult
    | QuantizeBitsAndBytesResult
    | QuantizeGptqResult
    | ScoreResult
    | LocateLossResult
    | EvaluateResult
    | LoadTestResult
    | BatchResult
    | InspectKernelsResult
)

JOBS: tuple[type[Job[Any]], ...] = typing.get_args(AnyJob)
