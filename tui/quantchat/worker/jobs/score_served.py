"""Scores a text with a server: the surprisal of each token, and a lower bound of the KLD.

The server gets the tokens that the reference read (`ScoreJob.windows`). It reports only the
likeliest tokens of each position; for both models, all other tokens are merged into one outcome.
Merging outcomes never raises a KL divergence, so the result is at most the true divergence.
"""

from __future__ import annotations

import contextlib
import math
import time
from array import array
from pathlib import Path
from typing import Any

from quantchat.wire.jobs import ScoreJob, ScoreResult
from quantchat.worker import loaders
from quantchat.worker.failures import Refused
from quantchat.worker.report import Report
from quantchat.worker.scoring.logit_store import BYTES, LogitReader
from quantchat.worker.scoring.text_scoring import check_mean
from quantchat.worker.scoring.windows import Windows
from quantchat.worker.servers.opening import Opener
from quantchat.worker.servers.prompt_logprobs import TokenLogprobs

LEAST_PROBABILITY = 1e-12
"""Lowest probability of all other tokens together, so that rounding does not make it 0."""


def run(job: ScoreJob, report: Report) -> ScoreResult:
    """Let the server read the windows, and write the figures for each token into the output folder.

    Raises Refused if the server gives no log-probabilities.
    """
    read = _windows(job)
    opener = Opener(lambda stage, detail: report(0, 0, detail or stage), _ignore)
    server = opener.open(job.load, loaders.loader_of(job.load)).decoder.client
    layout = Windows(job.window, job.stride)
    positions = len(read) * layout.scored
    # The stored logits of the reference may include those of the tokens before the scored ones
    # (`Windows.early`). These are skipped, because some servers need one request for each token.
    early = layout.early if job.depths else 0
    stored = positions + len(read) * early
    began = time.monotonic()
    figures: dict[str, array[float]] = {}

    def note(name: str, value: float) -> None:
        figures.setdefault(name, array("d")).append(value)

    fewest = 0
    with contextlib.ExitStack() as files:
        others = {
            name: files.enter_context(LogitReader(Path(file), stored, _width(file, stored)))
            for name, file in job.against.items()
        }
        for done, ids in enumerate(read):
            report(done, len(read), "windows read")
            logprobs = server.score_prompt(ids, layout.context)
            counts = [len(one.likeliest) for one in logprobs]
            fewest = min(counts) if not done else min(fewest, *counts)
            for one in logprobs:
                note("nll", -one.own)
                if one.likeliest:
                    note("top", max(one.likeliest, key=lambda token: one.likeliest[token]))
            for name, other in others.items():
                rows = other.read(early + len(logprobs), "cpu")[early:]
                for row, one in zip(rows, logprobs, strict=True):
                    if one.likeliest:
                        forward, backward = merged_divergence(row, one)
                        note(f"{name}.forward", forward)
                        note(f"{name}.backward", backward)
        report(len(read), len(read), "windows read")
    check_mean(math.fsum(figures["nll"]) / positions)
    for name, values in figures.items():
        if len(values) == positions:
            (Path(job.workspace.output) / name).write_bytes(values.tobytes())
    return ScoreResult(
        model_info=server.model_info(),
        tokens=job.tokens,
        positions=positions,
        context=layout.context,
        ids_sha256=job.ids_sha256,
        begin="",
        vocabulary=0,
        seconds=round(time.monotonic() - began, 2),
        weights=-1,
        likeliest=fewest,
        window=job.window,
    )


def merged_divergence(row: Any, logprobs: TokenLogprobs) -> tuple[float, float]:
    """Return KL(p ‖ q) and KL(q ‖ p) in nats; all tokens that q does not name are one outcome.

    `row` has the log-probabilities of p, shape (vocabulary,); `logprobs` are those of q.
    """
    p = [math.exp(float(row[token])) for token in logprobs.likeliest]
    q = [math.exp(logprob) for logprob in logprobs.likeliest.values()]
    p.append(max(LEAST_PROBABILITY, 1 - math.fsum(p)))
    q.append(max(LEAST_PROBABILITY, 1 - math.fsum(q)))
    pairs = list(zip(p, q, strict=True))
    forward = math.fsum(a * math.log(a / b) for a, b in pairs if a > 0 and b > 0)
    backward = math.fsum(b * math.log(b / a) for a, b in pairs if a > 0 and b > 0)
    return max(0.0, forward), max(0.0, backward)


def _windows(job: ScoreJob) -> list[list[int]]:
    """Return the windows of token ids that the reference read. Raises Refused."""
    file = Path(job.windows)
    if not file.is_file():
        raise Refused(
            "unsupported",
            "a server is scored on the tokens of the reference, which was not scored",
            "see the failure of the reference",
        )
    ids = array("q", file.read_bytes())
    return [list(ids[n : n + job.window]) for n in range(0, len(ids), job.window)]


def _width(file: str, positions: int) -> int:
    """Return the size of the vocabulary of the logits that `file` stores for `positions` tokens."""
    return Path(file).stat().st_size // (positions * BYTES)


def _ignore(error: BaseException) -> None:
    """Do nothing when a server that quantchat started ends: the open request fails then anyway."""
    del error
