"""An evaluation as it may be stored in a snapshot."""

from __future__ import annotations

from typing import Any

from quantchat.snapshot.evaluation import (
    EvaluatedRecord,
    EvaluationRecord,
    FigureRecord,
    TaskResultRecord,
)


def figure(right: str, **more: Any) -> FigureRecord:
    fields: dict[str, Any] = {
        "metric": "acc",
        "filter": "none",
        "value": right.count("1") / len(right),
        "error": 0.1,
        "right": right,
    }
    return FigureRecord(**{**fields, **more})


def done(label: str, role: Any, *figures: FigureRecord, **more: Any) -> EvaluatedRecord:
    task = TaskResultRecord(
        task=more.pop("task", "letters"),
        version="1",
        few_shot=0,
        questions=8,
        questions_sha256="d" * 64,
        figures=list(figures),
    )
    fields: dict[str, Any] = {
        "label": label,
        "role": role,
        "model_info": None,
        "note": "",
        "tasks": [task] if figures else [],
        "seconds": 2.5,
    }
    return EvaluatedRecord(**{**fields, **more})


def evaluation(*models: EvaluatedRecord, **changes: Any) -> EvaluationRecord:
    fields: dict[str, Any] = {
        "harness": "0.4.13",
        "chat_template": False,
        "limit": 0,
        "batch": 1,
        "models": list(models),
        "undone": [],
    }
    return EvaluationRecord(**{**fields, **changes})
