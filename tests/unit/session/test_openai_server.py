"""A variant on a server: real workers, over HTTP, with a server on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes.openai_server import CHUNKS, TOKENS, FakeServer, serving
from fakes.opened_comparison import Opened
from fakes.printed_document import printed
from fakes.waiting import PATIENCE_S, until
from quantchat.errors import UserError
from quantchat.features.memory_plan.tables import blocks
from quantchat.measuring.memory_plan import make_plan
from quantchat.measuring.rounds import Plan, Rounds, Task
from quantchat.profile.load import loads
from quantchat.profile.model import Generation, Profile
from quantchat.session.conversation import Answer
from quantchat.session.live_variant import State
from quantchat.session.recorder import record
from quantchat.session.teacher_forcing import cross_perplexities
from quantchat.system.sampler import DeviceSampler
from quantchat.wire.messages import NO_ID
from quantchat.wire.redaction import redacted

pytestmark = pytest.mark.usefixtures("own_folders")

TOML = """
name = "servers"
[[variants]]
label = "one"
engine = "openai"
model = "tiny"
base_url = "{url}"
{more}
[[variants]]
label = "other"
engine = "openai"
model = "tiny"
base_url = "{url}"
api = "completion"
"""


def profile(url: str, more: str = "") -> Profile:
    return loads(TOML.format(url=url, more=more), where="p.toml", folder=Path())


@pytest.fixture
async def opened(server: FakeServer) -> AsyncIterator[Opened]:
    made = Opened(profile(server.url))
    yield made
    await made.comparison.close()


async def test_chunks_are_told_from_tokens(opened: Opened, server: FakeServer) -> None:
    one = await opened.load()
    assert one.state is State.READY, one.failure
    turn = await opened.ask()
    for answer in turn.answers.values():
        assert answer.text == "".join(CHUNKS)
        assert (answer.reason, answer.ids) == ("eos", [NO_ID] * len(CHUNKS))
        assert (answer.reported_tokens, answer.prompt_tokens, answer.cached_tokens) == (
            TOKENS,
            11,
            4,
        )
        told = answer.timing()
        assert told.output_tokens == answer.output_tokens == TOKENS
        assert told.prefill_tok_s is None  # nobody tells when a server had read the prompt
        assert told.ttft_ms is not None
        assert told.tpot_ms == pytest.approx(span_ms(answer) / (TOKENS - 1))
    assert server.requests[-1]["stream_options"]["include_usage"] is True
    assert {"messages" in r for r in server.requests} == {True, False}  # chat and completion


def span_ms(answer: Answer) -> float:
    return (answer.times_ns[-1] - answer.times_ns[0]) / 1e6


@pytest.mark.parametrize("behaviour", ["uncounted", "silent on usage"])
async def test_without_a_count_no_speed_is_claimed(
    opened: Opened, server: FakeServer, behaviour: str
) -> None:
    server.behaviour = behaviour
    one = await opened.load()
    assert one.ready is not None
    assert "does not count tokens" in one.ready.note
    answer = (await opened.ask()).answers["one"]
    told = answer.timing()
    assert answer.reported_tokens == told.output_tokens == -1
    assert told.tpot_ms is told.decode_tok_s is told.end_to_end_tok_s is None
    assert told.ttft_ms is not None


async def test_greedy_means_no_penalty_of_the_server_s_own(
    opened: Opened, server: FakeServer
) -> None:
    one = await opened.load()
    await opened.ask()
    sent = server.requests[-1]
    assert (sent["temperature"], sent["repeat_penalty"], sent["repetition_penalty"]) == (0, 1, 1)
    assert "top_k" not in sent
    assert one.ready is not None and "its own" in one.ready.note
    assert "repetition penalty" not in one.ready.note
    opened.comparison.set_generation(Generation(temperature=0.7, top_k=0))
    await opened.ask()
    sent = server.requests[-1]
    assert sent["top_k"] > 1_000_000 and (sent["top_p"], sent["min_p"]) == (1, 0)


async def test_a_server_is_sent_the_variables_of_the_template(server: FakeServer) -> None:
    made = Opened(profile(server.url, more="chat_template_kwargs = { enable_thinking = false }"))
    await made.load()
    await made.ask()
    sent = {("messages" in one): one.get("chat_template_kwargs") for one in server.requests}
    assert sent == {True: {"enable_thinking": False}, False: None}  # a completion has no template
    await made.comparison.close()


async def test_what_is_measured_is_asked_to_come_from_no_prompt_cache(
    opened: Opened, server: FakeServer
) -> None:
    await opened.load()
    await opened.ask()
    assert not {"cache", "cache_prompt", "cache_salt"} & set(
        server.requests[-1]
    )  # a chat may be kept
    before = len(server.requests)
    await Rounds(opened.comparison, Plan((Task("Where?"),), rounds=2, warmup=0)).run()
    measured = server.requests[before:]
    assert [one["cache_prompt"] for one in measured] == [False] * 4
    assert [one["cache"] for one in measured] == [{"no-cache": True}] * 4
    assert len({one["cache_salt"] for one in measured}) == 4


async def test_what_a_strict_server_does_not_take_is_left_out_and_told(
    opened: Opened, server: FakeServer
) -> None:
    server.behaviour = "strict"
    one = await opened.load()
    assert one.ready is not None, one.failure
    assert "with its own top-k and repetition penalty" in one.ready.note
    answer = (await opened.ask()).answers["one"]
    assert (answer.reason, answer.reported_tokens) == ("eos", TOKENS)
    assert "repeat_penalty" not in server.requests[-1]
    # What the user sets is left out as well, but then the note says so.
    assert "repeat_penalty" not in one.ready.note
    opened.comparison.set_generation(Generation(repetition_penalty=1.3))
    answer = (await opened.ask()).answers["one"]
    assert answer.failure is None and answer.text == "".join(CHUNKS)
    assert "requests omit repeat_penalty" in one.ready.note
    assert server.requests[-1]["repetition_penalty"] == 1.3


async def test_tgi_that_refuses_a_top_p_of_1_in_its_stream(
    opened: Opened, server: FakeServer
) -> None:
    server.behaviour = "TGI"
    one = await opened.load()
    assert one.ready is not None, one.failure
    assert "with its own top-p" in one.ready.note
    opened.comparison.set_generation(Generation(temperature=0.7))
    answers = (await opened.ask()).answers.values()
    assert [answer.reason for answer in answers] == ["eos", "eos"]
    sent = server.requests[-1]
    assert "top_p" not in sent and sent["top_k"] and sent["stream_options"]
    # One that was wished for is sent.
    opened.comparison.set_generation(Generation(temperature=0.7, top_p=0.9))
    await opened.ask()
    assert server.requests[-1]["top_p"] == 0.9


async def test_an_end_token_that_is_not_sent_is_not_counted(
    opened: Opened, server: FakeServer
) -> None:
    server.behaviour = "counts the end"
    await opened.load()
    answer = (await opened.ask()).answers["one"]
    told = answer.timing()
    assert answer.reason == "eos" and told.output_tokens == len(CHUNKS)
    assert told.tpot_ms == pytest.approx(span_ms(answer) / (len(CHUNKS) - 1))


async def test_recorded_without_divergence_and_memory(opened: Opened) -> None:
    await opened.load()
    await opened.ask()
    snapshot = record(opened.comparison)
    assert snapshot.turns[0].divergence_point is None
    variant = snapshot.variants[0]
    assert variant.predicted is None
    assert variant.memory is not None
    assert (variant.memory.bytes, variant.memory.source) == (None, "unknown")
    assert "does not report" in variant.memory.reason
    assert variant.ledger is not None
    assert variant.ledger.weights == variant.ledger.process == -1
    assert variant.model_info is not None
    assert variant.model_info.context_length == 4096
    assert variant.model_info.tokenizer_hash == ""


REFUSALS = [
    ("401", "server_denied", "requires a key"),
    ("404", "server_refused", "does not know tiny"),
    ("429", "server_busy", "it says 429"),
    ("500", "server_refused", "it says 500"),
]


async def test_refused_while_asking_and_while_loading(opened: Opened, server: FakeServer) -> None:
    await opened.load()
    for status, kind, word in REFUSALS:
        server.behaviour = status
        answer = (await opened.ask()).answers["one"]
        assert answer.failure is not None
        assert (answer.failure.kind, word in answer.failure.reason) == (kind, True)
        assert opened.one.state is State.READY
    server.behaviour = "404"
    opened.one.end()
    await until(lambda: opened.one.state is State.IDLE)
    opened.one.begin()
    await until(lambda: opened.one.state is State.FAILED)
    assert opened.one.failure is not None
    assert opened.one.failure.kind == "server_refused"


async def test_a_cut_stream_keeps_what_came_and_the_next_prompt_connects_anew(
    opened: Opened, server: FakeServer
) -> None:
    await opened.load()
    server.behaviour = "cut"
    answer = (await opened.ask()).answers["one"]
    assert answer.failure is not None
    assert answer.failure.kind == "stream_cut"
    assert answer.text == "".join(CHUNKS)
    server.behaviour = "ok"
    assert (await opened.ask()).answers["one"].reason == "eos"


async def test_nobody_reads_what_has_no_token_ids(opened: Opened) -> None:
    await opened.load()
    turn = await opened.ask()
    await cross_perplexities(turn, list(opened.comparison.sides))
    told = [one.problem for answer in turn.answers.values() for one in answer.cross_perplexities]
    assert told == ["servers report no token ids"] * 4


async def test_why_a_server_breaks_off_is_told(opened: Opened, server: FakeServer) -> None:
    await opened.load()
    server.behaviour = "breaks off"
    answer = (await opened.ask()).answers["one"]
    assert answer.failure is not None
    assert answer.failure.kind == "stream_cut"
    assert "broke the answer off: out of memory" in answer.failure.reason
    assert answer.text == "".join(CHUNKS) and answer.reported_tokens == -1


@pytest.mark.parametrize(("along", "wordless"), [(True, 0), (True, 5), (False, 5)])
async def test_a_token_without_text_has_come_where_it_is_counted(
    opened: Opened, server: FakeServer, along: bool, wordless: int
) -> None:
    """And an end token has not: no variant's answer has it."""
    await opened.load()
    server.counts_along, server.wordless_tokens = along, wordless
    answer = (await opened.ask()).answers["one"]
    assert len(answer.times_ns) == len(CHUNKS) + (wordless if along else 0)
    assert answer.text == "".join(CHUNKS)


async def test_silence_has_an_end(server: FakeServer) -> None:
    opened = Opened(profile(server.url, "timeout_s = 3"))  # time enough to load on a busy machine
    try:
        await opened.load()
        server.behaviour = "mute"
        answer = opened.comparison.ask("Where?").answers["one"]
        await until(lambda: answer.over)
        assert answer.failure is not None
        assert answer.failure.kind == "server_silent"
        assert "timeout_s" in answer.failure.hint
        server.hung_up.set()
    finally:
        await opened.comparison.close()


async def test_a_server_that_was_away_is_asked_again_without_loading() -> None:
    with serving() as server:
        opened = Opened(profile(server.url))
        one = await opened.load()
        assert (await opened.ask()).answers["one"].reason == "eos"
    try:
        answer = (await opened.ask()).answers["one"]
        assert answer.failure is not None
        assert answer.failure.kind == "server_unreachable"
        assert one.state is State.READY
        with serving(server.server_address[1]):
            assert (await opened.ask()).answers["one"].reason == "eos"
    finally:
        await opened.comparison.close()


async def test_stop_closes_the_stream(opened: Opened, server: FakeServer) -> None:
    await opened.load()
    server.behaviour = "endless"
    turn = opened.comparison.ask("Go on")
    await until(lambda: all(len(a.ids) > len(CHUNKS) for a in turn.answers.values()))
    opened.comparison.stop()
    await opened.comparison.wait()
    assert {answer.reason for answer in turn.answers.values()} == {"stop"}
    await asyncio.to_thread(server.hung_up.wait, PATIENCE_S)
    assert server.hung_up.is_set()


async def test_nobody_listens() -> None:
    with serving() as gone:
        url = gone.url
    opened = Opened(profile(url))
    try:
        one = await opened.load()
        assert one.failure is not None
        assert one.failure.kind == "server_unreachable"
        assert url.split("/")[2] in one.failure.reason
    finally:
        await opened.comparison.close()


async def test_the_key_is_taken_from_the_environment(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = profile(server.url, 'key_env = "FAKE_API_KEY"')
    opened = Opened(spec)
    try:
        one = await opened.load()
        assert one.failure is not None
        assert "FAKE_API_KEY is not set" in one.failure.reason
        monkeypatch.setenv("FAKE_API_KEY", "sk-something-secret")
        one.retry()
        await until(lambda: one.state is State.READY)
        assert "Bearer sk-something-secret" in server.keys
        assert "sk-something" not in record(opened.comparison).model_dump_json()
    finally:
        await opened.comparison.close()


def test_the_plan_says_that_it_does_not_know(server: FakeServer) -> None:
    sampler = DeviceSampler()
    plan = make_plan(profile(server.url), sampler.sample())
    sampler.close()
    assert {variant.problem for variant in plan.variants} == {
        "the memory of a server is not known from here"
    }
    assert plan.fit == "not known"
    where = server.url.split("/")[2]
    assert f"the free memory of {where} is not known" in printed(blocks(plan))


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ('device = "cuda:1"', "a setting of the server"),
        ('key_env = "sk-123"', "key_env"),
        ("timeout_s = 0", "timeout_s"),
        ('kernel = "marlin"', "kernel"),
    ],
)
def test_mistakes_in_the_profile(more: str, word: str) -> None:
    with pytest.raises(UserError) as caught:
        profile("http://127.0.0.1:1/v1", more)
    assert word in "".join(caught.value.lines)


def test_a_login_has_no_place_in_the_address() -> None:
    with pytest.raises(UserError, match="base_url"):
        profile("http://me:secret@127.0.0.1:1/v1")


@pytest.mark.parametrize(
    ("query", "word"),
    [("?api-key=sk-123", "key_env"), ("?a=b&access_token=x", "key_env"), ("#top", "only browsers")],
)
def test_a_query_with_a_secret_or_a_fragment_is_refused(query: str, word: str) -> None:
    with pytest.raises(UserError) as caught:
        profile(f"http://127.0.0.1:1/v1{query}")
    assert word in "".join(caught.value.lines)
    assert profile("http://127.0.0.1:1/v1?api-version=2024-02-01")


async def test_a_key_is_secret_whatever_its_variable_is_called(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "sk-canary-0123456789"
    monkeypatch.setenv("VLLM_CREDENTIAL", f"{key}\n")
    monkeypatch.setattr("quantchat.wire.redaction._named", set())
    opened = Opened(profile(server.url, 'key_env = "VLLM_CREDENTIAL"'))
    try:
        one = await opened.load()
        assert f"Bearer {key}" in server.keys
        server.behaviour, server.full = "full", f"Bearer {key} may not do that"
        answer = (await opened.ask()).answers["one"]
        assert answer.failure is not None
        assert "Bearer [VLLM_CREDENTIAL] may not do that" in answer.failure.reason
        assert one.log is not None and key not in one.log.read_text()
        assert key not in redacted(f"told on this side: {key}")
    finally:
        await opened.comparison.close()
