"""What a server reports on its context, models, version and tokens, in vLLM's format."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes.openai_server import BUILD, CHUNKS, FakeServer
from fakes.opened_comparison import Opened
from fakes.served_pair import served_pair
from fakes.waiting import until
from quantchat.profile.load import loads
from quantchat.profile.model import Generation

pytestmark = pytest.mark.usefixtures("own_folders")


@pytest.fixture
async def opened(server: FakeServer) -> AsyncIterator[Opened]:
    made = Opened(loads(served_pair(server.url), where="p.toml", folder=Path()))
    await made.load()
    yield made
    await made.comparison.close()


async def test_an_answer_that_the_context_cut_is_not_said_to_be_as_long_as_allowed(
    opened: Opened, server: FakeServer
) -> None:
    server.behaviour = "out of room"
    assert (await opened.ask()).answers["one"].reason == "context"
    opened.comparison.set_generation(Generation(max_new_tokens=7))
    assert (await opened.ask()).answers["one"].reason == "length"


FULL = (
    "This model's maximum context length is 2048 tokens. However, your prompt contains more",
    "max_tokens=4000 cannot be greater than max_model_len=2048.",
    "The input (9000 tokens) is longer than the model's context length.",
    "max_completion_tokens is too large: 4000.This model supports at most 512 completion tokens.",
    "the request exceeds the available context size, try increasing it",
    "`inputs` must have less than 4096 tokens. Given: 9000",
    "`inputs` tokens + `max_new_tokens` must be <= 8192. Given: 9000",
)
"""Of vLLM twice, SGLang twice, llama.cpp and TGI twice."""


async def test_a_prompt_that_does_not_fit_is_told_as_a_full_context(
    opened: Opened, server: FakeServer
) -> None:
    server.behaviour = "full"
    for server.full in FULL:
        failure = (await opened.ask()).answers["one"].failure
        assert failure is not None and failure.kind == "context_full", server.full
        assert server.full in failure.reason and "max_new_tokens" in failure.hint
    server.full = "top_k must be at least 0"
    failure = (await opened.ask()).answers["one"].failure
    assert failure is not None and failure.kind == "server_refused"


async def test_a_wrong_name_is_told_with_those_that_there_are(server: FakeServer) -> None:
    toml = served_pair(server.url).replace('"tiny"', '"no-such"')
    made = Opened(loads(toml, where="p.toml", folder=Path()))
    server.behaviour = "404"
    failure = (await made.load()).failure
    await made.comparison.close()
    assert failure is not None and "does not know no-such" in failure.reason
    assert failure.hint == "correct `model`: the server has tiny"


async def test_what_the_server_says_that_it_is_goes_into_the_snapshot(opened: Opened) -> None:
    assert opened.one.ready is not None
    assert opened.one.ready.model_info.libraries["server"] == BUILD


async def test_a_stopped_answer_is_counted_where_the_server_counts_along(
    opened: Opened, server: FakeServer
) -> None:
    server.behaviour, server.counts_along = "endless", True
    turn = opened.comparison.ask("Go on")
    answers = turn.answers.values()
    await until(lambda: all(len(one.pieces) > len(CHUNKS) for one in answers))
    opened.comparison.stop()
    await opened.comparison.wait()
    assert [(one.reason, one.reported_tokens) for one in answers] == [
        ("stop", 2 * len(one.pieces)) for one in answers
    ]
