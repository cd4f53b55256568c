"""Ollama 0.32.15: what it reports beside OpenAI's protocol, and what it does unasked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fakes.openai_server import FakeServer
from fakes.opened_comparison import Opened
from fakes.served_pair import served_pair
from quantchat.measuring.measurement import Measurement
from quantchat.measuring.rounds import Plan, Task
from quantchat.profile.load import loads
from quantchat.session.conversation import Answer
from quantchat.system.sampler import DeviceSampler
from quantchat.wire.messages import Message
from quantchat.worker.servers.ollama import Ollama

pytestmark = pytest.mark.usefixtures("own_folders")

DIGEST = "941f309b54caaad6747569ba43712bcde44a2be3bae16c3282ff499c37c54af5"
VERSION, SHOW, PS, LOAD = (f"/api/{name}" for name in ("version", "show", "ps", "generate"))
DETAILS = {"format": "gguf", "family": "llama", "quantization_level": "Q4_1"}
CHAT = "/v1/chat/completions"


def native(context: int = 4096) -> dict[str, Any]:
    """What its own interface answers about a model that is loaded."""
    about = {"general.parameter_count": 134515008, "llama.context_length": 8192}
    modelfile = f"# To build\n# FROM tiny:latest\n\nFROM /models/blobs/sha256-{DIGEST}\nTEMPLATE x"
    tagged = {"name": "tiny:latest", "model": "tiny:latest", "details": DETAILS}
    running = {"size": 209505483, "size_vram": 0, "context_length": context}
    return {
        VERSION: {"version": "0.32.15"},
        SHOW: {"details": DETAILS, "model_info": about, "modelfile": modelfile},
        PS: {"models": [{**tagged, **running}]},
        LOAD: {"model": "tiny", "response": "", "done": True, "done_reason": "load"},
    }


def saying(prompt_tokens: int = 16, output_tokens: int = 3) -> str:
    """A chat's stream: the count includes the end token."""
    about = '"id":"chatcmpl-876","created":1795909831,"model":"tiny","object":"'
    about += 'chat.completion.chunk","system_fingerprint":"fp_ollama"'
    choice = f'{{{about},"choices":[{{"index":0,"delta":{{"role":"assistant","content":"Par"}},'
    usage = f'"prompt_tokens":{prompt_tokens},"completion_tokens":{output_tokens}'
    lines = [
        f'{choice}"finish_reason":null}}]}}',
        f'{{{about},"choices":[{{"index":0,"delta":{{"content":"is"}},"finish_reason":null}}]}}',
        f'{{{about},"choices":[{{"index":0,"delta":{{}},"finish_reason":"stop"}}]}}',
        f'{{{about},"choices":[],"usage":{{{usage},"total_tokens":0}}}}',
        "[DONE]",
    ]
    return "".join(f"data: {line}\n\n" for line in lines)


@pytest.fixture
async def opened(server: FakeServer) -> AsyncIterator[Opened]:
    server.native, server.recorded = native(), lambda _: saying()
    more = 'engine = "openai"\nchat_template_kwargs = { enable_thinking = false }\n'
    toml = served_pair(server.url).replace('engine = "openai"\n', more, 1)
    made = Opened(loads(toml, where="p.toml", folder=Path()))
    yield made
    await made.comparison.close()


async def asked(opened: Opened) -> Answer:
    return (await opened.ask()).answers["one"]


async def test_what_it_tells_of_a_model(opened: Opened) -> None:
    one = await opened.load()
    assert one.ready is not None, one.failure
    told = one.ready.model_info
    assert (told.kernel, told.dtype) == ("server (Ollama, Q4_1)", "Q4_1")
    assert (told.context_length, told.parameters) == (4096, 134515008)
    assert "it reports 0.20 GiB for the model, none of it on a GPU" in one.ready.note
    assert (told.checkpoint_hash, told.libraries["server"]) == (DIGEST, "ollama 0.32.15")
    answer = await asked(opened)
    assert (answer.text, answer.reason, answer.reported_tokens) == ("Paris", "eos", 2)


def tiny(
    context: int = 4096, version: str = "0.32.15", size: int = 0, on_gpu: int = 0, **shown: str
) -> Ollama:
    made = Ollama(None, "tiny", version, dict(shown))
    made.context, made.size, made.on_gpu = context, size, on_gpu
    return made


NEWER = 'stop    "<|im_end|>"\ntop_k     20\nmin_p   0\npresence_penalty   1.5'
OWN = [
    (tiny(), "samples with its own top_k 40, and silently drops"),
    (tiny(parameters=NEWER), "samples with its own top_k 20, and"),
    (tiny(version="0.32.9"), "samples with its own top_k 40, repeat_penalty 1.1"),
    (
        tiny(version="0.12.3", parameters="top_k  0\nrepeat_penalty  1"),
        "asked not to, and silently drops",
    ),
    (tiny(system="You are Mario."), "its Modelfile adds a system prompt"),
    (tiny(256), "text that does not fit into its context of 256 tokens"),
    (tiny(0), "text that does not fit into its context"),
    (tiny(size=6 << 30, on_gpu=0), "it reports 6.00 GiB for the model, none of it on a GPU"),
    (tiny(size=6 << 30, on_gpu=4 << 30), "6.00 GiB for the model, 67% of it on a GPU"),
]


@pytest.mark.parametrize(("one", "told"), OWN)
def test_what_it_does_of_its_own_accord_is_told(one: Ollama, told: str) -> None:
    assert told in one.behaviour


FIRST = [Message("user", "Where?")]
NEXT = [*FIRST, Message("assistant", "Here."), Message("user", "And then?")]


def test_what_its_context_had_no_room_for_is_noticed() -> None:
    assert not tiny(256).dropped(FIRST, 18, 238)
    assert tiny(256).dropped(FIRST, 18, 239)  # it went on, and let go of its beginning
    assert tiny(256).dropped(FIRST, 130, 1)  # a prompt of 610 tokens was cut
    chat = tiny()
    assert not chat.dropped(FIRST, 100, 20)
    assert chat.dropped(NEXT, 119, 20)
    assert not chat.dropped(FIRST, 100, 20)  # another chat
    assert not tiny().dropped(NEXT, 119, 20)


async def test_a_model_that_was_unloaded_is_loaded_before_its_ttft_begins(
    opened: Opened, server: FakeServer
) -> None:
    await opened.load()
    server.asked.clear()
    answer = await asked(opened)
    assert sorted(path for path, _ in server.asked) == sorted([LOAD, LOAD, CHAT, CHAT])
    first = min(at for path, at in server.asked if path == LOAD)
    assert server.asked[0][0] == LOAD and answer.received_ns > first
    # And penalties and thoughts of its Modelfile are declined.
    for sent in server.requests[-2:]:
        assert (sent["presence_penalty"], sent["frequency_penalty"]) == (0, 0)
    assert {sent.get("reasoning_effort") for sent in server.requests[-2:]} == {"none", None}


async def test_an_answer_that_lost_its_beginning_is_told(
    opened: Opened, server: FakeServer
) -> None:
    server.native, server.recorded = native(256), lambda _: saying(18, 600)
    await opened.load()
    answer = await asked(opened)
    assert (answer.reason, answer.context_full, answer.text) == ("context", True, "Paris")


async def test_an_answer_that_it_breaks_off_for_repeating_itself(
    opened: Opened, server: FakeServer
) -> None:
    await opened.load()
    first, *_ = saying().splitlines()
    for count, told in (
        (31, "repeats the same text 31 times"),
        (30, "in the middle of the answer"),
    ):
        said = f"{first.replace('Par', ' buffalo')}\n\n" * count
        server.recorded = lambda _, said=said: said
        answer = await asked(opened)
        assert answer.failure is not None and told in answer.failure.reason
        assert answer.text == " buffalo" * count


async def test_a_measurement_doubts_kept_prompts_and_other_templates(
    opened: Opened, server: FakeServer
) -> None:
    def by_thought(body: dict[str, Any]) -> str:
        return saying(16 if "reasoning_effort" in body else 37)

    server.recorded = by_thought
    await opened.load()
    sampler = DeviceSampler()
    run = Measurement(opened.comparison, Plan((Task("Where?"),), rounds=1, warmup=0), sampler)
    await run.run()
    sampler.close()
    told = "\n".join(run.flags)
    assert "prompt 1: the sides read different numbers of tokens (one 16, other 37)" in told
    assert "one: the server caches prompts, and this cannot be turned off" in told


async def test_where_only_its_openai_side_is_reached_it_is_a_server_as_any_other(
    opened: Opened, server: FakeServer
) -> None:
    server.native = {}
    one = await opened.load()
    assert one.ready is not None and "from its own prompt cache" in one.ready.note
    assert one.ready.keeps_prompts
    assert one.ready.model_info.libraries["server"] == "fp_ollama"
    assert (await asked(opened)).text == "Paris"


async def test_a_refusal_that_names_a_listed_model_is_no_unknown_name(
    opened: Opened, server: FakeServer
) -> None:
    listed = '{"object":"list","data":[{"id":"tiny:latest","object":"model","created":1}]}'
    server.listed = listed
    refused = {"message": '"tiny" does not support chat', "type": "invalid_request_error"}
    server.recorded = lambda _: (400, {"error": refused})
    one = await opened.load()
    assert one.failure is not None
    assert 'answered with 400: "tiny" does not support chat' in one.failure.reason
