"""Scores a text: the model's surprisal at each token, and its KL divergence from other models.

The job writes its figures for each scored token (see `ScoreJob`). On request, it also stores the
model's logits (`scoring/logit_store.py`), with which later models are compared.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from array import array
from pathlib import Path
from typing import Any

from quantchat.wire.jobs import ScoreJob, ScoreResult
from quantchat.worker.failures import Refused
from quantchat.worker.jobs.job_env import prepare_process
from quantchat.worker.report import Report
from quantchat.worker.scoring.logit_store import BYTES, LogitReader, LogitWriter, divergence
from quantchat.worker.scoring.text_scoring import DECODE, TextScoring, begin, check_mean, surprisal

MIB = 2**20


def run(job: ScoreJob, report: Report) -> ScoreResult:
    """Let the model read the text, and write the figures for each token into the output folder.

    Raises Refused if the model cannot be loaded, cannot read the text, or splits it into other
    tokens than `job.ids_sha256` requires.
    """
    report(0, 0, "importing libraries")
    prepare_process(job.workspace)
    if job.windows:
        from quantchat.worker.jobs import score_served

        return score_served.run(job, report)
    reading = begin(job, report)
    digest = reading.tokens.digest
    if job.ids_sha256 and digest != job.ids_sha256:
        raise Refused(
            "unsupported",
            "the tokenizer of this model splits the text into other tokens than that of the"
            " reference, so their figures cannot be compared",
            "compare variants of one model",
        )
    began = time.monotonic()
    _Scoring(reading, job).run(report)
    seconds = round(time.monotonic() - began, 2)
    loaded, first = reading.loaded, reading.tokens.begin
    return ScoreResult(
        model_info=loaded.model_info(DECODE),
        tokens=len(reading.tokens.ids),
        positions=reading.positions,
        context=reading.windows.context,
        ids_sha256=digest,
        begin="" if first is None else loaded.tokenizer.decode([first]),
        vocabulary=reading.forecast.vocabulary,
        seconds=seconds,
        window=reading.windows.window,
        window_limit=reading.limit,
        # Counted at the end, because some kernels repack their weights on first use.
        weights=loaded.weight_bytes,
    )


class _Scoring:
    def __init__(self, reading: TextScoring, job: ScoreJob) -> None:
        self._reading = reading
        self._output = Path(job.workspace.output)
        self._job = job
        self._figures: dict[str, array[float]] = {}

    def run(self, report: Report) -> None:
        stored, vocabulary = self._reading.stored, self._reading.forecast.vocabulary
        job = self._job
        if job.keep:
            self._check_room(job.copies * stored * vocabulary * BYTES)
        with contextlib.ExitStack() as files:
            others = {
                name: files.enter_context(LogitReader(Path(file), stored, vocabulary))
                for name, file in job.against.items()
            }
            kept = files.enter_context(LogitWriter(self._output / job.keep)) if job.keep else None
            for logits, wanted, counts in self._reading.blocks(report):
                mine = logits.log_softmax(dim=-1)
                storing = kept.write(logits) if kept is not None else None
                if counts:
                    self._note("nll", surprisal(mine, wanted))
                    self._note("top", logits.argmax(dim=-1))
                    if storing is not None:
                        self._note("kept", divergence(mine, storing))
                which = "" if counts else ".early"
                for name, other in others.items():
                    theirs = other.read(len(mine), mine.device)
                    self._note(f"{name}{which}.forward", divergence(theirs, mine))
                    self._note(f"{name}{which}.backward", divergence(mine, theirs))
        check_mean(math.fsum(self._figures["nll"]) / self._reading.positions)
        ids = array("q")
        for start in self._reading.starts:
            ids.extend(self._reading.tokens.window(start, self._reading.windows))
        (self._output / "windows").write_bytes(ids.tobytes())
        for name, values in self._figures.items():
            (self._output / name).write_bytes(values.tobytes())

    def _note(self, name: str, values: Any) -> None:
        self._figures.setdefault(name, array("d")).extend(values.double().tolist())

    def _check_room(self, needed: int) -> None:
        free = shutil.disk_usage(self._output).free
        if needed > free:
            raise Refused(
                "no_space",
                f"the disk is too full for the logits: {needed // MIB} MiB are needed,"
                f" {free // MIB} are free",
                "use fewer --tokens, free some space, or set QUANTCHAT_CACHE to another disk",
            )
