"""Snapshots of measurements whose times are all given."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from fakes.saved_snapshots import MODEL_INFO, MS, answer, snapshot, variant
from quantchat.snapshot.schema import (
    AnswerRecord,
    MeasurementRecord,
    Snapshot,
    TaskRecord,
    TurnRecord,
)
from quantchat.statistics.latency import TurnTiming

TokenMs = Callable[[int, int], float]
"""Task and round, both counted from 1, to milliseconds a token."""


def timed(label: str, token_ms: float, *, tokens: int = 5, **changes: Any) -> AnswerRecord:
    """Return an answer of `tokens` tokens, `token_ms` apart; the first took five times as long."""
    received = 1_000 * MS
    first = received + round(5 * token_ms * MS)
    times = [first + round(n * token_ms * MS) for n in range(tokens)]
    fields: dict[str, Any] = {
        "order": "in-turn",
        "received_ns": received,
        "prefilled_ns": received + 1,
        "ids": list(range(tokens)),
        "pieces": ["x"] * tokens,
        "times_ns": times,
        "timing": TurnTiming.of(received_ns=received, times_ns=times, prompt_tokens=40),
    }
    return answer(label, **{**fields, **changes})


def measured(
    a: TokenMs = lambda task, round_: 20.0,
    b: TokenMs = lambda task, round_: 10.0,
    *,
    labels: tuple[str, str] = ("GPTQ", "NF4"),
    prompts: Sequence[str] = ("one", "two", "three"),
    rounds: int = 2,
    order: str = "in-turn",
    tokens: int = 5,
    model_info: dict[str, Any] | None = None,
    **changes: Any,
) -> Snapshot:
    """Return a finished measurement of two variants; `model_info` changes what both ran on."""
    left, right = labels
    turns = [
        TurnRecord(
            number=1_000_000 + task,
            prompt=prompt,
            task=task,
            round=round_,
            answers=[
                timed(left, a(task, round_), tokens=tokens, order=order),
                timed(right, b(task, round_), tokens=tokens, order=order),
            ],
            divergence_point=None,
        )
        for round_ in range(1, rounds + 1)
        for task, prompt in enumerate(prompts, 1)
    ]
    record = MeasurementRecord(
        tasks=[TaskRecord(prompt=p, prompt_tokens=0, output_tokens=0) for p in prompts],
        rounds=rounds,
        warmup=1,
        order="together" if order == "together" else "in-turn",
        ignore_eos=True,
        stopped=False,
        samples=[],
        flags=[],
    )
    ran = dataclasses.replace(MODEL_INFO, **{"checkpoint_hash": "f" * 64, **(model_info or {})})
    fields: dict[str, Any] = {
        "shown": [left, right],
        "variants": [variant(left, model_info=ran), variant(right, model_info=ran)],
        "turns": turns,
        "measurement": record,
        "profile": {
            "name": "demo",
            "variants": [
                {"label": label, "engine": "bitsandbytes", "model": "org/model"} for label in labels
            ],
        },
    }
    return snapshot(**{**fields, **changes})
