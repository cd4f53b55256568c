"""Dialects of servers, recorded from real ones or written after their source code."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fakes.openai_server import FakeServer
from fakes.opened_comparison import Opened
from fakes.served_pair import served_pair
from fakes.waiting import until
from quantchat.profile.load import loads
from quantchat.profile.model import Generation

pytestmark = pytest.mark.usefixtures("own_folders")

DONE = "data: [DONE]\n\n"


def events(*chunks: str) -> str:
    return "".join(f"data: {one}\n\n" for one in chunks)


@pytest.fixture
async def opened(server: FakeServer) -> AsyncIterator[Opened]:
    toml = served_pair(server.url).replace(
        "[[variants]]\n", '[[variants]]\napi = "completion"\n', 1
    )
    made = Opened(loads(toml, where="p.toml", folder=Path()))
    yield made
    await made.comparison.close()


OLLAMA = events(
    '{"id":"cmpl-1","object":"text_completion","created":1,"choices":[{"text":" Par",'
    '"index":0,"finish_reason":null}],"model":"tiny","system_fingerprint":"fp_ollama",'
    '"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}',
    '{"id":"cmpl-1","object":"text_completion","created":1,"choices":[{"text":"is",'
    '"index":0,"finish_reason":null}],"model":"tiny","system_fingerprint":"fp_ollama",'
    '"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}',
)
OLLAMA_END = events(
    '{"id":"cmpl-1","object":"text_completion","created":1,"choices":[{"text":"",'
    '"index":0,"finish_reason":"stop"}],"model":"tiny","system_fingerprint":"fp_ollama",'
    '"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}',
    '{"id":"cmpl-1","object":"text_completion","created":1,"choices":[],"model":"tiny",'
    '"system_fingerprint":"fp_ollama",'
    '"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}}',
)


async def test_ollama_s_zeros_before_the_end_are_no_count(
    opened: Opened, server: FakeServer
) -> None:
    server.recorded = lambda _: OLLAMA + OLLAMA_END + DONE
    await opened.load()
    answer = (await opened.ask()).answers["one"]
    assert (answer.text, answer.reported_tokens, answer.prompt_tokens) == (" Paris", 2, 5)
    server.recorded, server.held = lambda _: OLLAMA, True
    turn = opened.comparison.ask("Where?")
    answer = turn.answers["one"]
    await until(lambda: len(answer.pieces) == 2)
    opened.comparison.stop()
    await opened.comparison.wait()
    assert (answer.text, answer.reason, answer.reported_tokens) == (" Paris", "stop", -1)


TGI = events(
    '{"object":"text_completion","id":"","created":1,"choices":[{"index":0,"text":" Paris",'
    '"logprobs":null,"finish_reason":""}],"model":"tiny","system_fingerprint":"3.3.7-native"}',
    '{"object":"text_completion","id":"","created":1,"model":"tiny",'
    '"system_fingerprint":"3.3.7-native","choices":[{"index":0,"text":"<|im_end|>",'
    '"logprobs":null,"finish_reason":"eos_token"}],'
    '"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}}',
)


async def test_the_end_token_that_tgi_spells_out_is_no_text(
    opened: Opened, server: FakeServer
) -> None:
    server.recorded = lambda _: TGI + DONE
    await opened.load()
    answer = (await opened.ask()).answers["one"]
    assert (answer.text, answer.reason, answer.reported_tokens) == (" Paris", "eos", 1)


def mlx(body: dict[str, Any]) -> str:
    """mlx_lm.server 0.32: keep-alives, and no more for a top_k beyond the vocabulary."""
    alive = ": keepalive 2/3\n\n: keepalive 3/3\n\n"
    if body.get("top_k", 0) > 49152:
        return alive
    about = '"id": "1", "system_fingerprint": "0.32.2-0.32.4-Linux", "model": "tiny", "created": 1'
    if "messages" in body:
        said = [
            f'{{{about}, "object": "chat.completion.chunk", "choices": [{{"index": 0, '
            '"finish_reason": null, "delta": {"role": "assistant", "content": "Paris"}}]}',
            f'{{{about}, "object": "chat.completion.chunk", "choices": [{{"index": 0, '
            '"finish_reason": "length", "delta": {"role": "assistant"}}]}',
        ]
    else:
        said = [
            f'{{{about}, "object": "text_completion", "choices": [{{"index": 0, '
            '"finish_reason": null, "text": "Paris"}]}',
            f'{{{about}, "object": "text_completion", "choices": [{{"index": 0, '
            '"finish_reason": "length", "text": ""}]}',
        ]
    usage = '"usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}'
    count = f'{{{about}, "object": "chat.completion", "choices": [], {usage}}}'
    return alive + events(*said, count) + DONE


async def test_mlx_that_breaks_off_over_a_parameter_is_asked_without_it(
    opened: Opened, server: FakeServer
) -> None:
    server.recorded = mlx
    server.listed = ""  # so it does where there is no cache of the hub
    one = await opened.load()
    assert one.ready is not None, one.failure
    assert "with its own top-k and repetition penalty" in one.ready.note
    assert "use the server's count" in one.ready.note
    opened.comparison.set_generation(Generation(temperature=0.7, top_k=0, max_new_tokens=1))
    for answer in (await opened.ask()).answers.values():
        assert (answer.text, answer.reason, answer.reported_tokens) == ("Paris", "length", 1)


async def test_a_page_in_place_of_a_list_of_models_tells_nothing(
    opened: Opened, server: FakeServer
) -> None:
    server.listed = "<!doctype html><title>Welcome</title>"
    one = await opened.load()
    assert one.ready is not None, one.failure
    assert one.ready.model_info.context_length == 0


async def test_a_stream_without_an_end_is_no_server_that_is_ready(
    opened: Opened, server: FakeServer
) -> None:
    server.recorded = lambda _: "<!doctype html><title>Welcome</title>"
    one = await opened.load()
    assert one.failure is not None and one.failure.kind == "stream_cut"


def litellm(body: dict[str, Any]) -> str | tuple[int, dict[str, Any]]:
    """LiteLLM's proxy 1.108, before llama.cpp: an end without text, a count beside a choice."""
    if body["model"] != "tiny":
        said = f"Invalid model name passed in model={body['model']}. Call `/v1/models` to view"
        return 400, {"error": {"message": said, "type": "invalid_request_error", "code": "400"}}
    about = '"id":"1","created":1,"model":"tiny"'
    usage = '"usage":{"completion_tokens":2,"prompt_tokens":5,"total_tokens":7}'
    if "messages" in body:
        chat = f'{about},"object":"chat.completion.chunk","system_fingerprint":"b0-unknown"'
        return (
            events(
                f'{{{chat},"choices":[{{"index":0,"delta":{{"role":"assistant"}}}}]}}',
                f'{{{chat},"choices":[{{"index":0,"delta":{{"content":" Paris"}}}}]}}',
                f'{{{chat},"choices":[{{"finish_reason":"stop","index":0,"delta":{{}}}}]}}',
                f'{{{chat},"choices":[{{"index":0,"delta":{{}}}}],{usage}}}',
            )
            + DONE
        )
    text = f'{about},"object":"text_completion"'
    return (
        events(
            f'{{{text},"choices":[{{"index":0,"text":" Paris"}}]}}',
            f'{{{text},"choices":[{{"finish_reason":"stop","index":0}}]}}',
            f'{{{text},"choices":[{{"index":0}}],{usage}}}',
        )
        + DONE
    )


async def test_litellm_answers_with_chunks_that_lack_what_they_need_not_say(
    opened: Opened, server: FakeServer
) -> None:
    server.recorded = litellm
    await opened.load()
    for answer in (await opened.ask()).answers.values():
        # It counts the end token, too.
        assert answer.failure is None, answer.failure
        assert (answer.text, answer.reason, answer.reported_tokens) == (" Paris", "eos", 1)


async def test_litellm_that_does_not_know_a_name_or_a_key(
    server: FakeServer, opened: Opened
) -> None:
    server.recorded = litellm
    toml = served_pair(server.url).replace('"tiny"', '"no-such"')
    made = Opened(loads(toml, where="p.toml", folder=Path()))
    failure = (await made.load()).failure
    await made.comparison.close()
    assert failure is not None and "does not know no-such (400)" in failure.reason
    assert failure.hint == "correct `model`: the server has tiny"
    no_key = {"message": "No connected db.", "type": "no_db_connection", "code": "400"}
    server.recorded = lambda _: (400, {"error": no_key})
    one = await opened.load()
    assert one.failure is not None and one.failure.kind == "server_denied"


async def test_the_context_of_llama_cpp_is_that_of_one_request(
    opened: Opened, server: FakeServer
) -> None:
    server.listed = (
        '{"object":"list","data":[{"id":"tiny","object":"model","created":1,'
        '"owned_by":"llamacpp","meta":{"n_ctx":512,"n_ctx_train":8192}}]}'
    )
    one = await opened.load()
    assert one.ready is not None, one.failure
    assert one.ready.model_info.context_length == 512


async def test_openvino_s_server_loses_no_more_than_the_option_that_it_does_not_take(
    opened: Opened, server: FakeServer
) -> None:
    def ovms(body: dict[str, Any]) -> str | tuple[int, dict[str, Any]]:
        if "continuous_usage_stats" in body.get("stream_options", {}):
            return 400, {"error": "INVALID_ARGUMENT: Found unexpected stream options."}
        return litellm(body)

    server.recorded = ovms
    one = await opened.load()
    assert one.ready is not None, one.failure
    assert "its own" in one.ready.note and "penalty" not in one.ready.note
    opened.comparison.set_generation(Generation(temperature=0.7))
    await opened.ask()
    sent = server.requests[-1]
    assert (sent["repetition_penalty"], sent["top_p"]) == (1, 1)
    assert sent["stream_options"] == {"include_usage": True}
