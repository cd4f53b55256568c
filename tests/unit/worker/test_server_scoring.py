"""A server is scored: on the reference's tokens, by the log-probabilities that it gives."""

from __future__ import annotations

import itertools
import json
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fakes.openai_server import FakeServer
from quantchat.wire.jobs import ScoreJob, ScoreResult, Workspace
from quantchat.wire.messages import LoadModel
from quantchat.worker.failures import Refused
from quantchat.worker.jobs import score_served
from quantchat.worker.jobs.score_served import merged_divergence
from quantchat.worker.scoring.logit_store import LogitWriter, divergence
from quantchat.worker.servers.prompt_logprobs import TokenLogprobs

WINDOW, WINDOWS, VOCABULARY = 8, 3, 50
SCORED = WINDOW - (WINDOW // 2 + 1)
IDS = [[(7 * n + 11 * w) % VOCABULARY for n in range(WINDOW)] for w in range(WINDOWS)]

Answer = Callable[[dict[str, Any]], "str | tuple[int, dict[str, Any]]"]


def logprobs(seed: int) -> Any:
    """Log-probabilities of a model that looks at the position alone, (window, vocabulary)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(WINDOW, VOCABULARY, generator=generator).mul(2).log_softmax(-1)


MODEL, REFERENCE = logprobs(1), logprobs(2)


def streamed() -> str:
    """The answer to the request with which a client tries a server."""
    chunk = {"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": "stop"}]}
    return f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n"


def by_id(named: int) -> Answer:
    """A server as vLLM, which names the `named` likeliest tokens, and the prompt's own."""

    def answer(body: dict[str, Any]) -> str | tuple[int, dict[str, Any]]:
        if "prompt_logprobs" not in body:
            return streamed()
        told: list[Any] = [None]
        for n, token in enumerate(body["prompt"][1:]):
            likeliest = MODEL[n].topk(named).indices.tolist()
            told.append(
                {
                    str(i): {"logprob": float(MODEL[n, i])}
                    for i in dict.fromkeys([token, *likeliest])
                }
            )
        return 200, {"choices": [{"index": 0, "text": "x", "prompt_logprobs": told}]}

    return answer


def echoed(body: dict[str, Any]) -> str | tuple[int, dict[str, Any]]:
    """A server of OpenAI's first API, which does not know `prompt_logprobs`."""
    if "prompt_logprobs" in body:
        return 400, {"error": {"message": "unknown parameter prompt_logprobs"}}
    if not body.get("echo"):
        return streamed()
    own = [float(MODEL[n, token]) for n, token in enumerate(body["prompt"][1:])]
    return 200, {"choices": [{"text": "x", "logprobs": {"token_logprobs": [None, *own, -1.0]}}]}


def forced(body: dict[str, Any]) -> str | tuple[int, dict[str, Any]]:
    """llama.cpp's server, which tells only of the token that it generates, biased or not."""
    if body.get("stream"):
        return streamed()
    if body.get("echo"):
        return 400, {"error": {"message": "Only no echo is supported"}}
    if "logprobs" not in body:
        return 200, {"choices": [{"index": 0, "text": "x", "logprobs": None}]}
    row = MODEL[len(body["prompt"]) - 1]
    (own,) = map(int, body["logit_bias"])
    top = [{"id": i, "logprob": float(row[i])} for i in row.topk(body["logprobs"]).indices.tolist()]
    content = [{"id": own, "logprob": float(row[own]), "top_logprobs": top}]
    return 200, {"choices": [{"index": 0, "text": "x", "logprobs": {"content": content}}]}


def silent(body: dict[str, Any]) -> str | tuple[int, dict[str, Any]]:
    """A server that ignores both."""
    if "prompt" in body and not body.get("stream"):
        return 200, {"choices": [{"index": 0, "text": "x"}]}
    return streamed()


def scored(server: FakeServer, folder: Path, answer: Answer) -> ScoreResult:
    """Score it against the stored logits of `REFERENCE`."""
    (folder / "windows").write_bytes(array("q", itertools.chain(*IDS)).tobytes())
    with LogitWriter(folder / "forecasts") as writer:
        for _ in IDS:
            writer.write(REFERENCE[: WINDOW - 1])
    server.recorded = answer
    options = {"api": "chat", "base_url": server.url, "timeout_s": 20.0}
    load = LoadModel("openai", "tiny", options, loader="quantchat.worker.loaders.openai")
    (output := folder / "out").mkdir()
    job = ScoreJob(
        load=load,
        text="",
        window=WINDOW,
        stride=WINDOW,
        depths=True,
        workspace=Workspace(str(output), str(output)),
        against={"0": str(folder / "forecasts")},
        windows=str(folder / "windows"),
    )
    return score_served.run(job, lambda *counts: None)


def expected_nll() -> list[float]:
    rows = range(WINDOW - SCORED, WINDOW)
    return [-float(MODEL[n - 1, ids[n]]) for ids in IDS for n in rows]


def test_surprisal_is_exact_and_the_divergence_a_lower_bound(
    server: FakeServer, tmp_path: Path
) -> None:
    result = scored(server, tmp_path, by_id(10))
    assert (result.positions, result.weights) == (WINDOWS * SCORED, -1)
    assert result.likeliest in (10, 11)
    read = {name: numpy.fromfile(tmp_path / "out" / name) for name in ("nll", "top", "0.forward")}
    assert read["nll"].tolist() == pytest.approx(expected_nll(), abs=1e-5)
    rows = slice(WINDOW - SCORED - 1, WINDOW - 1)
    assert read["top"].tolist() == MODEL[rows].argmax(-1).tolist() * WINDOWS
    whole = divergence(REFERENCE[rows], MODEL[rows]).tolist() * WINDOWS
    assert all(0 < a <= b + 1e-3 for a, b in zip(read["0.forward"], whole, strict=True))
    prompts = [one["prompt"] for one in server.requests if "prompt_logprobs" in one]
    assert prompts == IDS


def test_a_server_that_is_forced_to_generate_the_text_gives_the_same(
    server: FakeServer, tmp_path: Path
) -> None:
    (named := tmp_path / "named").mkdir()
    (one_by_one := tmp_path / "forced").mkdir()
    scored(server, named, by_id(20))
    result = scored(server, one_by_one, forced)
    assert result.likeliest in (20, 21)
    for name in ("nll", "top", "0.forward", "0.backward"):
        files = (folder / "out" / name for folder in (named, one_by_one))
        assert len({file.read_bytes() for file in files}) == 1
    biased = [one for one in server.requests if "logit_bias" in one]
    assert len(biased) == result.positions  # of what is only context nothing is asked


def test_a_server_that_does_not_apply_the_bias_is_refused(
    server: FakeServer, tmp_path: Path
) -> None:
    with pytest.raises(Refused, match="gives no log-probabilities of a prompt's tokens"):
        scored(server, tmp_path, lambda body: forced({**body, "logit_bias": {"1": 1}}))


def test_with_all_tokens_named_the_divergence_is_whole(server: FakeServer, tmp_path: Path) -> None:
    scored(server, tmp_path, by_id(VOCABULARY))
    rows = slice(WINDOW - SCORED - 1, WINDOW - 1)
    forward, backward = (
        numpy.fromfile(tmp_path / "out" / f"0.{name}").tolist() for name in ("forward", "backward")
    )
    assert forward == pytest.approx(
        divergence(REFERENCE[rows], MODEL[rows]).tolist() * WINDOWS, abs=2e-3
    )
    assert backward == pytest.approx(
        divergence(MODEL[rows], REFERENCE[rows]).tolist() * WINDOWS, abs=2e-3
    )


def test_a_server_without_ids_has_its_surprisal_alone(server: FakeServer, tmp_path: Path) -> None:
    result = scored(server, tmp_path, echoed)
    assert result.likeliest == 0
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["nll"]
    nll = numpy.fromfile(tmp_path / "out" / "nll")
    assert nll.tolist() == pytest.approx(expected_nll(), abs=1e-5)


def test_a_server_without_any_is_refused(server: FakeServer, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="gives no log-probabilities of a prompt's tokens"):
        scored(server, tmp_path, silent)


def test_without_the_references_tokens_it_is_refused(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path), str(tmp_path))
    job = ScoreJob(
        LoadModel("openai", "m", {}), "", 8, 8, workspace, windows=str(tmp_path / "windows")
    )
    with pytest.raises(Refused, match="the reference, which was not scored"):
        score_served.run(job, lambda *counts: None)


@given(
    st.lists(st.floats(-4, 4), min_size=6, max_size=6),
    st.lists(st.floats(-4, 4), min_size=6, max_size=6),
    st.integers(1, 6),
)
def test_merging_never_raises_the_divergence(
    one: list[float], other: list[float], named: int
) -> None:
    p, q = (torch.tensor(logits).double().log_softmax(-1) for logits in (one, other))
    told = TokenLogprobs(0.0, {n: float(q[n]) for n in range(named)})
    forward, backward = merged_divergence(p, told)
    assert forward <= float(divergence(p[None], q[None])) + 1e-6
    assert backward <= float(divergence(q[None], p[None])) + 1e-6
