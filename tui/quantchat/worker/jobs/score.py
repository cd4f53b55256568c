"""One model reads a text: how well it foretells each token, and how far it is from other models.

No stage of making a checkpoint: it writes figures, a number for each scored token, and on request
its own forecasts (`worker/scoring/kept.py`), for the next model to be compared with.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from array import array
from pathlib import Path
from typing import Any

from quantchat.worker.failures import Refused
from quantchat.worker.jobs import Report
from quantchat.worker.jobs.job_env import settle
from quantchat.worker.memory import Holdings
from quantchat.worker.scoring.logit_store import BYTES, LogitReader, LogitWriter, divergence
from quantchat.worker.scoring.text_scoring import TextScoring, begin, bounded, surprisal

MIB = 2**20


def run(options: dict[str, Any], report: Report) -> dict[str, Any]:
    """Let a model read a text; `options` are those of `worker.scoring.reading.begin`, and more.

    `against` names other models, each with the file that holds its forecasts of the same tokens,
    whose `ids_sha256` is that of the result; empty: there are none yet. With `keep`, a name, the
    model's own forecasts are put into a file of that name in `output`; room for `copies` of them
    must be on the disk.

    Into `output` go arrays of float64, an item for each scored token in order: `nll` (negative log-
    likelihood, nats), `top` (the likeliest token's id), and for each of `against`
    `<name>.forward`, KL(other ‖ this), and `<name>.backward`, KL(this ‖ other), nats; and with
    `keep` `kept`, the KL divergence of what was kept from what the model said.

    Result: what `TextScoring.about` says, `seconds` of reading, and `weights`, the bytes of those.
    """
    report(0, 0, "importing libraries")
    settle(options)
    reading = begin(options, report)
    about = reading.about()
    expected = options["ids_sha256"]
    if expected and about["ids_sha256"] != expected:
        raise Refused(
            "unsupported",
            "its tokenizer cuts the text into other tokens: it cannot be compared",
            "compare variants of one model",
        )
    began = time.monotonic()
    _Scoring(reading, options).run(report)
    seconds = round(time.monotonic() - began, 2)
    # Last: some kernels repack their weights when they are first used.
    return {
        **about,
        "seconds": seconds,
        "weights": Holdings.of(reading.loaded.model).by_dtype.total(),
    }


class _Scoring:
    def __init__(self, reading: TextScoring, options: dict[str, Any]) -> None:
        self._reading = reading
        self._output = Path(options["output"])
        self._against: dict[str, str] = options["against"]
        self._keep: str = options["keep"]
        self._copies: int = options["copies"]
        self._figures: dict[str, array[float]] = {}

    def run(self, report: Report) -> None:
        positions, vocabulary = self._reading.positions, self._reading.forecast.vocabulary
        if self._keep:
            self._check_room(self._copies * positions * vocabulary * BYTES)
        with contextlib.ExitStack() as files:
            others = {
                name: files.enter_context(LogitReader(Path(file), positions, vocabulary))
                for name, file in self._against.items()
            }
            kept = (
                files.enter_context(LogitWriter(self._output / self._keep)) if self._keep else None
            )
            for logits, wanted in self._reading.blocks(report):
                mine = logits.log_softmax(dim=-1)
                self._note("nll", surprisal(mine, wanted))
                self._note("top", logits.argmax(dim=-1))
                if kept is not None:
                    self._note("kept", divergence(mine, kept.write(logits)))
                for name, other in others.items():
                    theirs = other.read(len(mine), mine.device)
                    self._note(f"{name}.forward", divergence(theirs, mine))
                    self._note(f"{name}.backward", divergence(mine, theirs))
        bounded(math.fsum(self._figures["nll"]) / positions)
        for name, values in self._figures.items():
            (self._output / name).write_bytes(values.tobytes())

    def _note(self, name: str, values: Any) -> None:
        self._figures.setdefault(name, array("d")).extend(values.double().tolist())

    def _check_room(self, needed: int) -> None:
        free = shutil.disk_usage(self._output).free
        if needed > free:
            raise Refused(
                "no_space",
                f"the disk is too full for the forecasts: {needed // MIB} MiB are needed,"
                f" {free // MIB} are free",
                "take fewer --tokens, make room, or set QUANTCHAT_CACHE to another disk",
            )
