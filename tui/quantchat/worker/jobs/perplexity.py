"""Perplexity of one model on a text, by itself: what quantizing cost, before and after."""

from __future__ import annotations

import math
from typing import Any

from quantchat.worker.jobs import Report
from quantchat.worker.jobs.workplace import settle
from quantchat.worker.scoring.reading import begin, bounded, surprise


def run(options: dict[str, Any], report: Report) -> dict[str, Any]:
    """Let a model read a text; `options` are those of `worker.scoring.reading.begin`.

    Result: `perplexity` and its standard error with each token as a unit, `error`, beside what
    `Reading.about` says. Nothing is written.
    """
    report(0, 0, "importing libraries")
    settle(options)
    reading = begin(options, report)
    total = squares = 0.0
    for logits, wanted in reading.blocks(report):
        nll = surprise(logits.log_softmax(dim=-1), wanted).double()
        total += float(nll.sum())
        squares += float(nll.square().sum())
    count = reading.positions
    mean = bounded(total / count)
    variance = max(0.0, squares / count - mean**2)
    return {
        "perplexity": math.exp(mean),
        "error": math.exp(mean) * math.sqrt(variance / max(1, count - 1)),
        **reading.about(),
    }
