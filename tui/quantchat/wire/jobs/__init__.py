"""Jobs of a worker besides chatting: for each job the request, its result, and their parts.

A job is a frozen dataclass that the program sends; the worker answers with the result type that the
job names (`ScoreJob(Job[ScoreResult])`), or with `Failed`. Both are sent through the pipe with
their class names, and are decoded as strictly as every message. Folders and files are absolute
paths. Token counts are those of the model's own tokenizer.
"""

from __future__ import annotations

import typing
from typing import Any

from quantchat.wire.jobs.checkpoints import (
    CHATS,
    CHATS_TEXT,
    LEAST,
    LONG,
    SHORT,
    AwqSettings,
    CalibrateJob,
    CalibrateResult,
    CalibrationPart,
    CalibrationUsed,
    CollectJob,
    CollectResult,
    DequantizeJob,
    DequantizeResult,
    GptqSettings,
    MergeAdapterJob,
    MergeAdapterResult,
    MergedAdapter,
    ModuleLoss,
    QuantizeAwqJob,
    QuantizeBitsAndBytesJob,
    QuantizeBitsAndBytesResult,
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
from quantchat.wire.jobs.load import (
    NOW,
    ROUNDS,
    BatchJob,
    BatchResult,
    BatchRound,
    Level,
    LoadNow,
    LoadRound,
    LoadTestJob,
    LoadTestResult,
    RequestTimes,
)
from quantchat.wire.jobs.score import (
    LocateJob,
    LocateResult,
    PartError,
    ScoreJob,
    ScoreResult,
)
from quantchat.wire.jobs.tasks import EvaluateJob, EvaluateResult, TaskFigure, TaskResult

__all__ = [
    "CHATS",
    "CHATS_TEXT",
    "COMPILES",
    "JOBS",
    "LEAST",
    "LONG",
    "MUST_COMPILE",
    "NOW",
    "READY",
    "ROUNDS",
    "SHORT",
    "UNUSABLE",
    "AnyJob",
    "AwqSettings",
    "BatchJob",
    "BatchResult",
    "BatchRound",
    "BuildTools",
    "CalibrateJob",
    "CalibrateResult",
    "CalibrationPart",
    "CalibrationUsed",
    "CollectJob",
    "CollectResult",
    "CudaDevice",
    "DequantizeJob",
    "DequantizeResult",
    "EvaluateJob",
    "EvaluateResult",
    "GptqSettings",
    "InspectKernelsJob",
    "InspectKernelsResult",
    "Job",
    "JobResult",
    "Kernel",
    "KernelState",
    "Level",
    "LoadNow",
    "LoadRound",
    "LoadTestJob",
    "LoadTestResult",
    "Loader",
    "LocateJob",
    "LocateResult",
    "MergeAdapterJob",
    "MergeAdapterResult",
    "MergedAdapter",
    "ModuleLoss",
    "PartError",
    "QuantizeAwqJob",
    "QuantizeBitsAndBytesJob",
    "QuantizeBitsAndBytesResult",
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
    | CollectJob
    | MergeAdapterJob
    | QuantizeBitsAndBytesJob
    | QuantizeGptqJob
    | QuantizeAwqJob
    | ScoreJob
    | LocateJob
    | EvaluateJob
    | LoadTestJob
    | BatchJob
    | InspectKernelsJob
)
JobResult = (
    DequantizeResult
    | CalibrateResult
    | CollectResult
    | MergeAdapterResult
    | QuantizeBitsAndBytesResult
    | QuantizeGptqResult
    | ScoreResult
    | LocateResult
    | EvaluateResult
    | LoadTestResult
    | BatchResult
    | InspectKernelsResult
)

JOBS: tuple[type[Job[Any]], ...] = typing.get_args(AnyJob)
