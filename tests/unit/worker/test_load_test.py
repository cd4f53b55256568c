"""Load tests with a server on loopback: how many requests are open, and what is recorded."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from fakes.openai_server import FakeServer, serving
from quantchat.wire.codec import from_json
from quantchat.wire.jobs import LoadTestJob, LoadTestLevel, LoadTestResult, LoadTestRound, Workspace
from quantchat.wire.messages import LoadModel
from quantchat.worker.failures import Refused
from quantchat.worker.jobs import load_test

PATIENCE_S = 60.0


def run(
    server: FakeServer, folder: Path, *levels: LoadTestLevel, requests: int = 6, rounds: int = 1
) -> tuple[LoadTestResult, list[LoadTestRound]]:
    options = {"base_url": server.url, "api": "chat", "timeout_s": PATIENCE_S}
    job = LoadTestJob(
        server=LoadModel("openai", "tiny", options=options),
        levels=list(levels),
        prompts=["one", "two"],
        requests=requests,
        output_tokens=3,
        rounds=rounds,
        seed=7,
        workspace=Workspace(str(folder), str(folder)),
    )
    result = load_test.run(job, lambda done, total, detail: None)
    lines = (folder / "rounds.jsonl").read_text().splitlines()
    return result, [from_json(LoadTestRound, json.loads(line)) for line in lines]


def test_each_level_in_each_round(tmp_path: Path) -> None:
    with serving() as server:
        result, rounds = run(server, tmp_path, LoadTestLevel(1), LoadTestLevel(3), rounds=2)
    assert [one.level for one in rounds] == [0, 1, 0, 1], "the levels take turns"
    assert result.tokens_counted
    for one in (request for found in rounds for request in found.requests):
        assert (one.error, one.output_tokens, one.prompt_tokens) == ("", 7, 11)
        assert one.sent_ns <= one.chunks_ns[0] <= one.chunks_ns[-1] <= one.ended_ns
        assert one.due_ns == one.sent_ns, "a closed loop sends a request as soon as there is room"


def test_so_many_are_open_at_once(tmp_path: Path) -> None:
    """The server answers nobody until three requests are there, and never sees a fourth."""
    open_now, most, lock = 0, 0, threading.Lock()
    three = threading.Barrier(3)

    def answered(body: dict[str, Any]) -> str:
        nonlocal open_now, most
        if body["max_tokens"] > 1:  # not the client's own first requests
            with lock:
                open_now += 1
                most = max(most, open_now)
            three.wait(PATIENCE_S)
            with lock:
                open_now -= 1
        said = {"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": "stop"}]}
        return f"data: {json.dumps(said)}\n\ndata: [DONE]\n\n"

    with serving() as server:
        server.recorded = answered
        _, rounds = run(server, tmp_path, LoadTestLevel(3), requests=6)
    assert most == 3
    assert len(rounds[0].requests) == 6


def test_an_open_loop_sends_at_the_times_of_its_seed(tmp_path: Path) -> None:
    with serving() as server:
        _, first = run(server, tmp_path, LoadTestLevel(0, rate=200.0), requests=8)
        _, again = run(server, tmp_path, LoadTestLevel(0, rate=200.0), requests=8)
    due = [one.due_ns for one in first[0].requests]
    assert due[1:] == [one.due_ns for one in again[0].requests][1:]
    assert due == sorted(due) and len(set(due)) == 8
    assert all(one.sent_ns >= one.due_ns for one in first[0].requests)


def test_a_request_that_fails_is_recorded(tmp_path: Path) -> None:
    count = 0

    def answered(body: dict[str, Any]) -> str | tuple[int, dict[str, Any]]:
        nonlocal count
        count += body["max_tokens"] > 1
        if count == 3:
            count += 1
            return 503, {"error": {"message": "too busy"}}
        said = {"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": "stop"}]}
        return f"data: {json.dumps(said)}\n\ndata: [DONE]\n\n"

    with serving() as server:
        server.recorded = answered
        _, rounds = run(server, tmp_path, LoadTestLevel(1), requests=4)
    errors = [one.error for one in rounds[0].requests]
    assert sum(map(bool, errors)) == 1
    assert "too busy" in next(filter(None, errors))


def test_a_server_that_refuses_ignore_eos_gets_requests_without_it(tmp_path: Path) -> None:
    """As `transformers serve` does."""

    def answered(body: dict[str, Any]) -> str | tuple[int, dict[str, Any]]:
        if "ignore_eos" in body:
            return 422, {"detail": "Unexpected fields in the request: {'ignore_eos'}"}
        said = {"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": "stop"}]}
        return f"data: {json.dumps(said)}\n\ndata: [DONE]\n\n"

    with serving() as server:
        server.recorded = answered
        result, rounds = run(server, tmp_path, LoadTestLevel(2), requests=4)
    assert [one.error for one in rounds[0].requests] == [""] * 4
    assert "the server refuses ignore_eos, so answers may be shorter" in result.note


def test_a_server_that_answers_nothing_is_refused(tmp_path: Path) -> None:
    with serving() as server, pytest.raises(Refused, match="it requires a key"):
        server.behaviour = "401"
        run(server, tmp_path, LoadTestLevel(1))
