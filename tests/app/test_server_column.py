"""A server's column beside a local column: real workers and connections.

The left variant is scripted; the right variant is a server on loopback, reached over HTTP.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import psutil
import pytest

from fakes.openai_server import CHUNKS, FakeServer
from fakes.screen_reader import column, see, see_in, text, wait_until
from fakes.scripted_app import DEMO, LEFT, SIZES, Running, Setup
from quantchat.profile.model import Profile
from quantchat.session.live_variant import State

each_size = pytest.mark.parametrize("size", SIZES)

SERVED = "served"
PROGRAM = Path(__file__).parents[1] / "fakes" / "run_openai_server.py"
SAID = "".join(CHUNKS)
Size = tuple[int, int]


def beside_a_server(setup: Setup, base_url: str, **more: object) -> None:
    """Let `setup` have the variant of a server on the right."""
    served = {"label": SERVED, "engine": "openai", "model": "tiny", "base_url": base_url, **more}
    local = {"label": LEFT, "engine": "gptq", "model": DEMO}
    setup.profile = Profile.model_validate({"name": "a server", "variants": [local, served]})
    setup.real = (SERVED,)


async def chunks(run: Running, least: int) -> None:
    """Wait until so many of the newest answer have come."""

    def come() -> bool:
        turn = run.comparison.last_turn
        return turn is not None and len(turn.answers[SERVED].pieces) >= least

    await wait_until(run.pilot, come, f"{least} chunks")


async def goes_on(run: Running) -> None:
    """Wait until the screen shows an endless answer go on; its start may have scrolled away."""
    turn = run.comparison.last_turn
    assert turn is not None
    answer = turn.answers[SERVED]
    # The one before it may have been as endless, and be on the screen yet.
    await wait_until(run.pilot, lambda: answer.text.startswith(f"{SAID}on on"), "its start")
    await see_in(run.pilot, 1, "on on on")


async def see_like(run: Running, pattern: str) -> None:
    """Wait until the server's column holds what `pattern` matches."""
    await wait_until(run.pilot, lambda: re.search(pattern, column(run.app, 1)), pattern)


@each_size
async def test_a_remote_server(setup: Setup, size: Size, server: FakeServer) -> None:
    beside_a_server(setup, server.url)
    async with setup.running(size) as run:
        await run.ready()
        where = server.url.split("/")[2]
        await see_in(
            run.pilot, 1, f"server (fake) · {'context 4096' if size[0] > 80 else ''}", where
        )
        await see_in(run.pilot, 1, "+ first answer", "model: tiny", "times are when chunks arrive")
        # Nothing of this machine's memory is said to be its own.
        await see_in(run.pilot, 1, "memory not reported by the server")
        assert text(run.app).count("not reported") == 1  # neither its dtype nor its attention
        assert "smaller" not in text(run.app)

        # While it streams nobody counts tokens, so no speed in tokens is claimed.
        server.behaviour = "endless"
        await run.ask("Where?")
        await chunks(run, 20)
        await goes_on(run)
        await see_in(run.pilot, 1, "incl. network")
        await see_like(run, r"chunks [\d.]+/s now [\d.]+ avg")
        assert "faster" not in text(run.app)
        server.behaviour = "ok"
        await run.settled()
        await see_in(run.pilot, 1, "7 tokens · ", "tok/s – now", "prompt 11, 4 cached")
        await see(run.pilot, "no ratio: too few tokens")
        await see(run.pilot, "same text for 12 characters, then “of France is")

        # It is stopped: what came is counted as what it is.
        server.behaviour = "endless"
        await run.ask("Where?")
        await chunks(run, 5)
        await run.pilot.press("escape")
        await run.settled()
        await see_like(run, r"■ stopped \d+ chunks · together")


async def test_a_completion_that_ends_at_once(setup: Setup, server: FakeServer) -> None:
    beside_a_server(setup, server.url, api="completion")
    async with setup.running() as run:
        await run.ready()
        await see_in(run.pilot, 1, "as plain text", 'Set api = "chat" in the profile')
        server.behaviour = "wordless"
        await run.answered("Where?")
        await see_in(run.pilot, 1, "■ ended without text")


async def test_a_cut_connection_and_a_refusal_are_the_column_s_own(
    setup: Setup, server: FakeServer
) -> None:
    beside_a_server(setup, server.url)
    setup.left.holds_after = 3
    async with setup.running() as run:
        await run.ready()
        server.behaviour = "endless"
        await run.ask("Where?")
        await chunks(run, 5)
        server.behaviour = "cut"
        await see_in(
            run.pilot, 1, "The connection to the server broke", "the text so far is kept; send"
        )
        assert run.comparison.sides[0].state is State.ANSWERING
        setup.left.gate.set()
        await run.settled()
        await see_in(run.pilot, 0, "The capital of France is Paris.")
        # It was never counted, and no speed is made up.
        await see_like(run, r"\d+ chunks · together")
        assert "faster" not in text(run.app)

        server.behaviour = "429"
        await run.answered("And now?")
        await see_in(run.pilot, 1, "The server is busy", "it says 429", "wait 3 s and ask again")
        server.behaviour = "ok"
        await run.answered("And now?")
        await see_in(run.pilot, 1, SAID, "7 tokens")


async def test_a_started_server_that_is_killed_is_had_again_by_a_key(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(PROGRAM.parents[1]))
    command = [sys.executable, str(PROGRAM), "{port}", "endless"]
    beside_a_server(setup, "http://127.0.0.1:{port}/v1", server={"command": command})
    setup.left.holds_after = 3
    async with setup.running() as run:
        await run.ready()
        served = run.comparison.sides[1]
        await see_in(run.pilot, 1, "server's start", "RAM")
        await see_like(run, r"RAM [\d.]+ MiB")
        assert "weights" not in column(run.app, 1)

        await run.ask("Where?")
        await chunks(run, 5)
        assert served.pid is not None
        (process,) = (
            child
            for child in psutil.Process(served.pid).children()
            if str(PROGRAM) in child.cmdline()
        )
        process.kill()
        await see_in(run.pilot, 1, "✖ failed", "The server ended", "was ended by signal 9")
        await see_in(run.pilot, 1, "F9 reloads it")
        answer = run.comparison.conversation.turns[-1].answers[SERVED]
        assert answer.text.startswith(SAID)
        assert run.comparison.sides[0].state is State.ANSWERING
        setup.left.gate.set()
        await run.settled()
        await see_in(run.pilot, 0, "The capital of France is Paris.", "6 tokens")

        await run.pilot.press("f9")
        await run.ready()
        await run.ask("Once more?")
        await goes_on(run)


@each_size
async def test_thoughts_are_drawn_apart_from_the_answer(
    setup: Setup, size: Size, server: FakeServer
) -> None:
    def event(delta: str, reason: str = "null", usage: str = "") -> str:
        choice = f'{{"index": 0, "delta": {delta}, "finish_reason": {reason}}}'
        return f'data: {{"choices": [{choice}]{usage}}}\n\n'

    details = '"completion_tokens_details": {"reasoning_tokens": 5}'
    usage = f', "usage": {{"prompt_tokens": 11, "completion_tokens": 9, {details}}}'
    thought = event('{"reasoning_content": "They ask for a city."}')
    said = event('{"content": "It is Paris."}')
    server.recorded = lambda body: (
        thought if server.held else thought + said + event("{}", '"stop"', usage)
    )
    beside_a_server(setup, server.url)
    async with setup.running(size) as run:
        await run.ready()
        server.held = True
        await run.ask("Where?")
        await see_in(run.pilot, 1, "▸ thinking · Alt+T opens", "TTFA –")
        await run.pilot.press("alt+t")
        await see_in(run.pilot, 1, "▾ thinking They ask for a city.")
        await run.pilot.press("escape")
        await run.settled()
        await see_in(run.pilot, 1, "thoughts They ask for a city.", "■ stopped")
        server.held = False
        server.hung_up.set()
        await run.answered("Where?")
        await see_in(run.pilot, 1, "thoughts, 5 tokens They ask for a city. It is Paris.")
        await run.pilot.press("alt+t")
        await see_in(run.pilot, 1, "▸ thoughts, 5 tokens · Alt+T opens It is Paris.")
        assert "They ask for a" not in text(run.app)
        messages = server.requests[-1]["messages"]
        await run.answered("Sure?")
        assert [m["content"] for m in server.requests[-1]["messages"]] == [
            *(m["content"] for m in messages),
            "It is Paris.",
            "Sure?",
        ]
