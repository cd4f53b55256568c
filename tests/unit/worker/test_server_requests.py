"""Requests to a server, and limits on reading its responses; over HTTP in this process."""

from __future__ import annotations

import gzip
import time
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from fakes.raw_server import Asked, raw_server
from fakes.served_decoder import after_warm_up, ask, decoder, refused
from quantchat.wire.messages import (
    LoadModel,
    Note,
    Sampling,
    Started,
)
from quantchat.worker.servers import client, connection, remote
from quantchat.worker.servers.remote import RemoteDecoder

pytest.importorskip("openai")


# ---------------------------------------------------------------- redirects and proxies


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_host_is_not_followed(status: int) -> None:
    with raw_server(lambda asked: asked.answer("elsewhere")) as other:
        where = other.url.replace("127.0.0.1", "localhost")

        def redirect(asked: Asked) -> None:
            asked.whole(b"", f"Location: {where}/chat/completions", status=status)

        with raw_server(after_warm_up(redirect)) as server:
            made = decoder(server)
            made.connect()
            kind, reason = refused(lambda: ask(made))
            assert kind == "server_refused"
            assert f"redirects ({status}) to {where.removesuffix('/v1')}" in reason
        assert other.asked == []


def test_a_redirect_within_the_server_is_followed() -> None:
    def answers(asked: Asked) -> None:
        if asked.path.startswith("/v1/"):
            asked.whole(b"", f"Location: /real{asked.path}", status=307)
        else:
            asked.answer()

    with raw_server(answers) as server:
        made = decoder(server)
        made.connect()
        assert ask(made).finished.text == "It is Paris."


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9", "what://x"])
def test_no_proxy_of_the_environment_stands_before_loopback(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy)
    with raw_server(lambda asked: asked.answer()) as server:
        made = decoder(server)
        made.connect()
        assert ask(made).finished.text == "It is Paris."


def test_nor_before_a_server_started_here_whatever_its_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ALL_PROXY", "what://x")
    options = {"api": "chat", "base_url": "http://box.invalid/v1", "timeout_s": 1.0}
    RemoteDecoder(LoadModel("openai", "tiny", {**options, "server": {"command": ["x"]}}))
    kind, reason = refused(lambda: RemoteDecoder(LoadModel("openai", "tiny", options)))
    assert kind == "server_unreachable" and "proxy settings" in reason


# ---------------------------------------------------------------- keys and queries


def test_a_key_is_stripped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_CREDENTIAL", " sk-canary-0123 \n")
    with raw_server(lambda asked: asked.answer()) as server:
        decoder(server, key_env="MY_CREDENTIAL").connect()
        assert {one.headers["authorization"] for one in server.asked} == {"Bearer sk-canary-0123"}


@pytest.mark.parametrize("key", ["", "  ", "sk two", "sk\ntwo", "schlüssel", "sk\x00", "sk\x7f"])
def test_a_key_that_no_header_can_carry_is_refused_by_its_name(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.environ", {"MY_CREDENTIAL": key})
    with raw_server(lambda asked: asked.answer()) as server:
        kind, reason = refused(lambda: decoder(server, key_env="MY_CREDENTIAL"))
        assert kind == "server_denied" and "MY_CREDENTIAL" in reason
        assert "sk" not in reason


def test_a_query_goes_along_with_each_request() -> None:
    with raw_server(lambda asked: asked.answer()) as server:
        made = decoder(server, "?api-version=2024-02-01&x=")
        made.connect()
        ask(made)
        paths = {one.path for one in server.asked}
    query = "?api-version=2024-02-01&x="
    assert paths == {f"/v1/models{query}", f"/v1/chat/completions{query}"}


# ---------------------------------------------------------------- parameters


def refusing(check: Callable[[dict[str, Any]], Any]) -> Callable[[Asked], None]:
    """Answers a request unless `check` of its body returns what is wrong: a body with status 400.

    A list is FastAPI's, with status 422.
    """

    def answers(asked: Asked) -> None:
        wrong = check(asked.body)
        if wrong is None:
            asked.answer()
        elif isinstance(wrong, list):
            asked.json({"detail": wrong}, status=422)
        else:
            asked.json({"error": wrong}, status=400)

    return answers


def no_seed(body: dict[str, Any]) -> Any:
    extra = {"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs"}
    return [extra] if "seed" in body else None


def new_openai(body: dict[str, Any]) -> Any:
    if "max_tokens" in body:
        said = "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
        return {"message": f"{said}'max_completion_tokens' instead.", "param": "max_tokens"}
    if body.get("temperature", 1) != 1:
        said = "Unsupported value: 'temperature' does not support 0 with this model."
        return {"message": said, "param": "temperature", "code": "unsupported_value"}
    return None


def old_tgi(body: dict[str, Any]) -> Any:
    wrong = body.get("temperature") == 0
    return "Input validation error: `temperature` must be strictly positive" if wrong else None


PARAMETERS: list[tuple[Callable[[dict[str, Any]], Any], set[str], set[str], str]] = [
    (no_seed, {"max_tokens", "temperature"}, {"seed"}, "omit seed"),
    (
        new_openai,
        {"max_completion_tokens", "seed"},
        {"max_tokens", "temperature"},
        "requests name max_completion_tokens",
    ),
    (old_tgi, {"max_tokens", "seed"}, {"temperature"}, "omit temperature"),
]


@pytest.mark.parametrize(("check", "sent", "left", "note"), PARAMETERS)
def test_a_parameter_that_a_refusal_names_is_left_out_or_renamed(
    check: Callable[[dict[str, Any]], Any], sent: set[str], left: set[str], note: str
) -> None:
    with raw_server(refusing(check)) as server:
        made = decoder(server)
        made.connect()
        assert note in made.note
        assert ask(made).finished.text == "It is Paris."
        last = server.asked[-1].body
        assert sent <= last.keys() and not left & last.keys()
        assert last.get("max_tokens", last.get("max_completion_tokens")) == 32


def named(name: str) -> Callable[[dict[str, Any]], Any]:
    """A check that refuses the parameter `name`, as vLLM refuses an unknown one."""
    extra = {"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs"}
    return lambda body: [extra] if name in body else None


def test_a_parameter_that_the_user_has_set_is_left_out_while_loading_and_reported() -> None:
    with raw_server(refusing(named("top_k"))) as server:
        made = decoder(server, sampling={"temperature": 0.7, "top_k": 5})
        made.connect()
        assert "omit top_k" in made.note


@pytest.mark.parametrize("name", ["seed", "temperature", "top_k", "top_p", "repetition_penalty"])
def test_a_parameter_refused_in_the_middle_of_a_chat_is_left_out_and_reported_once(
    name: str,
) -> None:
    with raw_server(lambda asked: asked.answer()) as server:
        made = decoder(server, sampling={"temperature": 0.7})
        made.connect()
        server.answers = refusing(named(name))
        sampling = Sampling(0.7, top_p=0.9, top_k=5, repetition_penalty=1.1)
        first, second = ask(made, sampling), ask(made, sampling)
        last = server.asked[-1].body
    assert first.finished.text == second.finished.text == "It is Paris."
    (note,) = [event.note for event in first.sent if isinstance(event, Note)]
    assert f"omit {name}" in note
    assert not any(isinstance(event, Note) for event in second.sent)
    assert name not in last and last["max_tokens"] == 32
    begun = [event.received_ns for event in first.sent if isinstance(event, Started)]
    assert len(begun) == 2 and begun[1] > begun[0]  # the refused request is no part of the TTFT


def test_a_limit_renamed_in_the_middle_of_a_chat() -> None:
    with raw_server(lambda asked: asked.answer()) as server:
        made = decoder(server)
        made.connect()
        server.answers = refusing(new_openai)
        assert ask(made, Sampling(1.0)).finished.text == "It is Paris."
        assert server.asked[-1].body["max_completion_tokens"] == 32


def test_the_warm_up_asks_with_the_profile_s_own_sampling() -> None:
    with raw_server(lambda asked: asked.answer()) as server:
        sampling = {"temperature": 0.7, "top_p": 0.9, "top_k": 5, "seed": 3}
        decoder(server, sampling=sampling).connect()
        bodies = [one.body for one in server.asked if one.method == "POST"]
    (body,) = bodies
    assert {key: body[key] for key in sampling} == sampling


def test_a_value_that_is_wrong_is_not_left_out() -> None:
    said = "max_tokens is too large: 32. This model supports at most 16 completion tokens"
    wrong = {"message": said, "param": "max_tokens"}
    with raw_server(refusing(lambda b: wrong if b.get("max_tokens") == 32 else None)) as server:
        made = decoder(server)
        made.connect()
        assert refused(lambda: ask(made))[0] == "context_full"


# ---------------------------------------------------------------- limits


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MOST_BYTES", 1 << 20)
    monkeypatch.setattr(client, "MOST_BYTES", 1 << 20)


def bomb(mebibytes: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = b" " * (1 << 20)
    return b"".join([*(packer.compress(block) for _ in range(mebibytes)), packer.flush()])


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
@pytest.mark.parametrize("place", ["models", "error", "stream"])
def test_a_body_is_read_up_to_a_size(place: str, encoding: str, small: None) -> None:
    data = bomb(64) if encoding == "gzip" else b" " * (3 << 20)
    head = f"Content-Encoding: {encoding}"

    def answers(asked: Asked) -> None:
        asked.whole(data, head, status=500 if place == "error" else 200)

    with raw_server(answers if place == "models" else after_warm_up(answers)) as server:
        server.lists_models = place != "models"
        made = decoder(server)
        if place != "models":
            made.connect()
        kind, reason = refused(made.connect if place == "models" else lambda: ask(made))
        assert kind == "stream_cut" and "sent more than 1 MiB" in reason


def test_an_answer_that_is_compressed_is_read() -> None:
    lines = [
        'data: {"choices": [{"index": 0, "delta": {"content": "Paris"}}]}\n\n',
        'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\n',
    ]
    letters = [chr(97 + n * n % 23) for n in range(5000)]
    lines[:0] = [lines[0].replace("Paris", letter * 300) for letter in letters]
    data = "".join(lines).encode()
    text = "".join(letter * 300 for letter in letters) + "Paris"
    for encoding, body in (("gzip", gzip.compress(data)), ("deflate", zlib.compress(data))):

        def answers(asked: Asked, encoding: str = encoding, body: bytes = body) -> None:
            asked.whole(body, f"Content-Encoding: {encoding}")

        with raw_server(answers) as server:
            made = decoder(server)
            made.connect()
            assert ask(made, most=5000).finished.text == text
            assert server.asked[-1].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(("encoding", "word"), [("br", "compresses"), ("gzip", "damaged")])
def test_a_body_that_cannot_be_read_is_refused(encoding: str, word: str) -> None:
    def answers(asked: Asked) -> None:
        asked.whole(b"what is this", f"Content-Encoding: {encoding}")

    with raw_server(after_warm_up(answers)) as server:
        made = decoder(server)
        made.connect()
        assert word in refused(lambda: ask(made))[1]


def trickle(*, headers: bool) -> Callable[[Asked], None]:
    """A byte now and then, for ever: of a body without a line, or of comments."""

    def answers(asked: Asked) -> None:
        if headers:
            asked.begin()
        else:
            asked.write(b"HTTP/1.1 200 X\r\nContent-Length: 99999\r\n\r\n")
        while True:
            time.sleep(0.02)
            asked.write(b": ping\n\n" if headers else b" ")

    return answers


@pytest.mark.parametrize("headers", [True, False])
def test_an_answer_of_which_nothing_comes_has_an_end(headers: bool) -> None:
    with raw_server(after_warm_up(trickle(headers=headers))) as server:
        made = decoder(server)
        made.connect()
        made.client.timeout_s = 0.3  # not before: loading has the same limit, and may be slow
        assert refused(lambda: ask(made))[0] == "server_silent"


@pytest.mark.parametrize("models", [True, False])
def test_loading_has_an_end(models: bool) -> None:
    with raw_server(trickle(headers=not models)) as server:
        server.lists_models = not models
        assert refused(decoder(server, timeout_s=0.3).connect)[0] == "server_silent"


def test_a_warm_up_that_never_ends_has_one() -> None:
    def endless(asked: Asked) -> None:
        asked.begin()
        while True:
            asked.say("on ")

    with raw_server(endless) as server:
        kind, _ = refused(decoder(server, timeout_s=0.3).connect)
        assert kind in ("server_silent", "stream_cut")


def test_an_answer_that_goes_on_and_on_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "MOST_CHUNKS", 8)

    def endless(asked: Asked) -> None:
        asked.begin()
        while True:
            asked.say("on ")

    with raw_server(after_warm_up(endless)) as server:
        made = decoder(server)
        made.connect()
        assert "does not stop after 2 tokens" in refused(lambda: ask(made, most=2))[1]


def test_a_text_that_no_message_can_hold_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "MOST_TEXT", 1 << 20)
    with raw_server(after_warm_up(lambda asked: asked.answer("\U0001f600" * 90_000))) as server:
        made = decoder(server)
        made.connect()
        assert "longer than 1 MiB" in refused(lambda: ask(made))[1]
