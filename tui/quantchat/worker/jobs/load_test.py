"""Sends many requests to a server at once; records when each was sent and when chunks arrived.

As in vLLM's `bench serve` and AIPerf, `concurrency` keeps that many requests open (a closed loop),
and `rate` sends requests at the times of a Poisson process, however fast the server answers (an
open loop).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import json
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from quantchat.wire.jobs import (
    PROGRESS_FILE,
    ROUNDS_FILE,
    LoadTestJob,
    LoadTestLevel,
    LoadTestProgress,
    LoadTestResult,
    LoadTestRound,
    RequestTimes,
)
from quantchat.wire.messages import Generate, Message
from quantchat.worker.failures import Refused
from quantchat.worker.loaders import loader_of
from quantchat.worker.report import Report
from quantchat.worker.servers.client import ServerClient
from quantchat.worker.servers.opening import Opener
from quantchat.worker.servers.stream import Usage

REQUESTS_PER_SLOT, LEAST_REQUESTS = 4, 8
"""Default requests per round: `REQUESTS_PER_SLOT` × concurrency, at least `LEAST_REQUESTS`."""


def run(job: LoadTestJob, report: Report) -> LoadTestResult:
    """Run all rounds of all load levels. A failed request is recorded and does not end the test.

    Raises Refused if the server cannot be used, or if all requests of a round fail.
    """
    opener = Opener(lambda stage, detail: report(0, 0, f"{stage} {detail}".strip()), lambda _: None)
    client = opener.open(job.server, loader_of(job.server)).decoder.client
    output = Path(job.workspace.output)
    with (
        Path(output, ROUNDS_FILE).open("w", encoding="utf-8") as rounds,
        Path(output, PROGRESS_FILE).open("w", encoding="utf-8") as progress,
    ):
        client.run(_LoadTest(client, job, report, rounds, progress).run())
    return LoadTestResult(client.model_info(), client.note, client.counts)


PROGRESS_EVERY_S = 0.2
"""Least seconds between two lines of progress, so that writing them costs almost nothing."""


class _LoadTest:
    def __init__(
        self,
        client: ServerClient,
        job: LoadTestJob,
        report: Report,
        rounds: TextIO,
        progress: TextIO,
    ) -> None:
        self._client, self._job, self._report = client, job, report
        self._rounds, self._progress = rounds, progress
        self._sampling = job.server.sampling
        self._numbers = itertools.count(1)
        """Yields the number of each request, which determines its prompt and its seed."""
        self._totals = [job.requests or default_requests(level) for level in job.levels]
        self._answered = 0
        self._written_s = 0.0

    async def run(self) -> None:
        await self._client.learn_refusals(self._request())
        for count in range(self._job.rounds):
            for index, level in enumerate(self._job.levels):
                arrivals = random.Random(f"{self._job.seed} {index} {count}")  # noqa: S311
                if count == 0:  # the first requests of a level may compile kernels
                    warm_up = LoadTestLevel(_open_at_once(level))
                    await self._round(index, warm_up, warm_up.concurrency, arrivals, warm_up=True)
                times = await self._round(index, level, self._totals[index], arrivals)
                if failed := _all_failed(times):
                    raise failed
                done = LoadTestRound(index, [one.times for one in times])
                _write(self._rounds, done)  # a test that is stopped keeps its finished rounds

    async def _round(
        self,
        index: int,
        level: LoadTestLevel,
        total: int,
        arrivals: random.Random,
        *,
        warm_up: bool = False,
    ) -> Sequence[_Request]:
        """Send `total` requests and return them once all are answered or have failed."""
        start = time.perf_counter_ns()
        slots = asyncio.Semaphore(level.concurrency or total)
        requests = [_Request(self._client, self._request(), start) for _ in range(total)]
        progress = _RoundProgress(index, total, start, warm_up=warm_up)

        async def send(request: _Request, due_ns: int) -> None:
            if due_ns:
                await asyncio.sleep((start + due_ns - time.perf_counter_ns()) / 1e9)
            async with slots:
                progress.note_sent()
                self._write_progress(progress)
                await request.send(due_ns)
            progress.note_ended(request.times)
            self._write_progress(progress)
            self._answered += 1
            self._report(self._answered, self._total, _named(level))

        await asyncio.gather(
            *itertools.starmap(send, zip(requests, _due(level, arrivals), strict=False))
        )
        return requests

    def _write_progress(self, progress: _RoundProgress) -> None:
        """Write the progress of the round, a few times a second."""
        now_s = time.monotonic()
        if now_s - self._written_s >= PROGRESS_EVERY_S:
            self._written_s = now_s
            _write(self._progress, progress.line())

    @property
    def _total(self) -> int:
        warm_up = sum(map(_open_at_once, self._job.levels))
        return warm_up + self._job.rounds * sum(self._totals)

    def _request(self) -> Generate:
        number, job = next(self._numbers), self._job
        return Generate(
            -number,
            [Message("user", job.prompts[number % len(job.prompts)])],
            dataclasses.replace(self._sampling, seed=job.seed + number),
            max_new_tokens=job.output_tokens,
            ignore_eos=True,
            fresh=True,
        )


class _RoundProgress:
    """Counts the requests of the running round."""

    def __init__(self, level: int, total: int, start_ns: int, *, warm_up: bool) -> None:
        self._level, self._total, self._warm_up = level, total, warm_up
        self._start_ns = start_ns
        self._open = self._answered = self._failed = self._tokens = 0

    def note_sent(self) -> None:
        self._open += 1

    def note_ended(self, times: RequestTimes) -> None:
        self._open -= 1
        self._answered += 1
        self._failed += bool(times.error)
        self._tokens += 0 if times.error else times.output_tokens

    def line(self) -> LoadTestProgress:
        return LoadTestProgress(
            level=self._level,
            warm_up=self._warm_up,
            in_flight=self._open,
            answered=self._answered,
            failed=self._failed,
            total=self._total,
            output_tokens=self._tokens,
            seconds=(time.perf_counter_ns() - self._start_ns) / 1e9,
        )


class _Request:
    """One request: sends it and records its times."""

    def __init__(self, client: ServerClient, request: Generate, start_ns: int) -> None:
        self._client, self._request, self._start_ns = client, request, start_ns
        self.refusal: Refused | None = None
        self.times: RequestTimes

    async def send(self, due_ns: int) -> None:
        sent_ns, chunks_ns, usage, error = self._now(), [], Usage(), ""
        timeout = self._client.timeout_s
        try:
            opened = await asyncio.wait_for(self._client.records(self._request), timeout)
            async with contextlib.aclosing(opened) as records:
                while True:
                    try:
                        record = await asyncio.wait_for(anext(records), timeout)
                    except StopAsyncIteration:
                        break
                    if record.text or record.thought:
                        chunks_ns.append(self._now())
                    if record.usage is not None:
                        usage = usage.updated(record.usage)
        except Exception as problem:
            self.refusal = self._client.refusal(problem)
            if self.refusal is None:
                raise
            error = self.refusal.failure.reason
        if not chunks_ns and not error:
            error = "the answer has no text"
        self.times = RequestTimes(
            due_ns=due_ns or sent_ns,
            sent_ns=sent_ns,
            chunks_ns=chunks_ns,
            ended_ns=self._now(),
            prompt_tokens=usage.prompt,
            output_tokens=usage.output if usage.output >= 0 else len(chunks_ns),
            error=error,
        )

    def _now(self) -> int:
        return time.perf_counter_ns() - self._start_ns


def _write(file: TextIO, line: LoadTestRound | LoadTestProgress) -> None:
    file.write(json.dumps(dataclasses.asdict(line)) + "\n")
    file.flush()


def default_requests(level: LoadTestLevel) -> int:
    """Return the default number of requests in a round at `level`."""
    return max(LEAST_REQUESTS, REQUESTS_PER_SLOT * level.concurrency)


def _open_at_once(level: LoadTestLevel) -> int:
    return level.concurrency or 1


def _due(level: LoadTestLevel, arrivals: random.Random) -> Iterator[int]:
    """Yield when each request is due, in ns since the start of the round.

    In a closed loop all times are 0: each request waits until fewer than `concurrency` are open.
    """
    at = 0.0
    while True:
        yield round(at * 1e9)
        at += arrivals.expovariate(level.rate) if level.rate else 0.0


def _named(level: LoadTestLevel) -> str:
    rate = f"{level.rate:g} requests/s" if level.rate else ""
    count = f"{level.concurrency} at once" if level.concurrency else ""
    return ", ".join(filter(None, (rate, count)))


def _all_failed(requests: Sequence[_Request]) -> Refused | None:
    """Return the first failure if no request was answered, otherwise None.

    If no request was answered, more rounds would be useless.
    """
    if any(not request.times.error for request in requests):
        return None
    return requests[0].refusal or Refused("server_refused", requests[0].times.error)
