"""A real worker with the real model answers, stops, reports failures in words, and ends."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from fakes.waiting import PATIENCE_S
from quantchat.errors import UserError
from quantchat.host.worker_process import Place, Worker, WorkerEnded, start_worker
from quantchat.wire.messages import (
    Failed,
    Finished,
    Generate,
    Hello,
    LoadModel,
    Message,
    Ready,
    Sampling,
    Started,
    Stop,
    Tokens,
)
from quantchat.wire.protocol import Event

pytestmark = pytest.mark.model

NF4 = {"quant_type": "nf4", "double_quant": True, "compute_dtype": "auto"}
E = TypeVar("E", bound=Event)


@pytest.fixture(autouse=True)
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTCHAT_LOGS", str(tmp_path / "logs"))


@contextlib.asynccontextmanager
async def running(python: str | None = None) -> AsyncIterator[Worker]:
    worker = await start_worker(Place("test", python))
    try:
        yield worker
    finally:
        await worker.close()
        assert not psutil.pid_exists(worker.pid)


async def wait_for(worker: Worker, kind: type[E]) -> tuple[E, list[Event]]:
    """The next event of `kind`, and what came before it. A Failed event ends the wait too."""
    before: list[Event] = []
    async for event in worker.events():
        if isinstance(event, kind):
            return event, before
        before.append(event)
        assert not isinstance(event, Failed), event
    raise AssertionError("unreachable: the events end with an exception")


def ask(turn: int, *said: str, most: int = 24, sampling: Sampling | None = None) -> Generate:
    roles = ["user", "assistant"]
    messages = [Message(roles[n % 2], text) for n, text in enumerate(said)]
    return Generate(turn, messages, sampling or Sampling(), most, threads=1)


def nf4(base: Path) -> LoadModel:
    return LoadModel("bitsandbytes", str(base), NF4, threads=1)


CONTEXT = 1024


@pytest.fixture
def short_base(demo_base: Path, tmp_path: Path) -> Path:
    """The real model with a short context, so that filling it takes a second and not a minute."""
    copy = tmp_path / "short"
    shutil.copytree(demo_base, copy)
    config = json.loads((copy / "config.json").read_text())
    config["max_position_embeddings"] = CONTEXT
    (copy / "config.json").write_text(json.dumps(config))
    return copy


async def test_what_ends_an_answer_and_what_is_inserted(demo_base: Path) -> None:
    """Stop strings, a logit bias and a limit of thoughts; each prompt opens the thoughts."""
    async with running() as worker:
        load = nf4(demo_base)
        worker.send(replace(load, options={**load.options, "thought_marks": ["", "(done)"]}))
        await wait_for(worker, Ready)
        question = "Write the numbers from one to twenty in words."
        # Each answer below reuses the prompt's cache: computed anew, its rounding would differ.
        worker.send(ask(0, question, most=1))
        await wait_for(worker, Finished)
        worker.send(ask(1, question, most=48))
        whole, _ = await wait_for(worker, Finished)
        words = whole.thoughts.split()
        stop = words[len(words) // 2]
        worker.send(ask(2, question, most=800, sampling=Sampling(stop=["never", stop])))
        stopped, before = await wait_for(worker, Finished)
        assert stopped.reason == "stop_string"
        streamed = [one for one in before if isinstance(one, Tokens)]
        shown = "".join("".join(one.thoughts) for one in streamed)
        assert shown == whole.thoughts[: whole.thoughts.index(stop)]

        ids = [token for one in streamed for token in one.ids]
        worker.send(ask(3, question, most=8, sampling=Sampling(logit_bias={str(ids[0]): -100.0})))
        _, before = await wait_for(worker, Finished)
        said = [token for one in before if isinstance(one, Tokens) for token in one.ids]
        assert said and ids[0] not in said

        short = ask(4, question, most=24, sampling=Sampling(max_thinking_tokens=8))
        worker.send(replace(short, ignore_eos=True))
        limited, _ = await wait_for(worker, Finished)
        assert whole.thoughts.startswith(limited.thoughts)
        assert limited.raw.startswith(f"{limited.thoughts}(done)") and limited.text


async def test_answers_again_and_again(short_base: Path) -> None:
    """One worker through the life of a chat: loading it is the dear part."""
    async with running() as worker:
        worker.send(nf4(short_base))
        ready, before = await wait_for(worker, Ready)
        assert isinstance(before[0], Hello)
        assert ready.model_info.kernel == "Linear4bit nf4, double quant"
        assert ready.model_info.chat_template
        # 135M parameters at 4.1 bits, and an embedding of 28M in bf16: about 113 MB.
        assert 100e6 < ready.ledger.weights < 130e6
        assert ready.ledger.process > ready.ledger.weights

        # It knows the capital, and says each token once, in order.
        question = "What is the capital of France?"
        worker.send(ask(1, question))
        finished, events = await wait_for(worker, Finished)
        assert "Paris" in finished.text
        batches = [event for event in events if isinstance(event, Tokens)]
        times = [t for batch in batches for t in batch.times_ns]
        assert times == sorted(times)
        assert len(times) == finished.output_tokens
        pieces = "".join(p for batch in batches for p in batch.pieces)
        assert finished.text.startswith(pieces)
        first = finished.text

        # The next turn computes only what is new.
        worker.send(ask(2, question, first, "And of Italy?"))
        finished, events = await wait_for(worker, Finished)
        (started,) = [event for event in events if isinstance(event, Started)]
        assert started.cached_tokens > 30
        assert started.prompt_tokens - started.cached_tokens < 30

        # Rolling back to an earlier point gives what it gave then: the cache holds no ghosts. Not
        # to the last word: the last token of the prompt is computed alone now, and on some
        # processors that is rounded otherwise, which decides where two tokens are nearly equal.
        worker.send(ask(3, question))
        finished, _ = await wait_for(worker, Finished)
        assert finished.text[:30] == first[:30]

        # The same seed says the same, another seed something else.
        texts = []
        for turn, seed in ((4, 7), (5, 7), (6, 8)):
            sampling = Sampling(temperature=1.0, top_p=0.95, top_k=50, seed=seed)
            worker.send(replace(ask(turn, "Tell me a story.", sampling=sampling), fresh=True))
            texts.append((await wait_for(worker, Finished))[0].text)
        assert texts[0] == texts[1] != texts[2]

        # A stop ends it between two tokens; what was said is kept.
        worker.send(ask(7, "Count to a thousand.", most=2000))
        await wait_for(worker, Tokens)
        worker.send(Stop(7))
        finished, _ = await wait_for(worker, Finished)
        assert finished.reason == "stop"
        assert 0 < finished.output_tokens < 2000

        # Also in the middle of a long prompt, and an old stop does not touch a new turn.
        worker.send(ask(8, "word " * (CONTEXT - 100)))
        await wait_for(worker, Started)
        worker.send(Stop(8))
        finished, _ = await wait_for(worker, Finished)
        assert (finished.reason, finished.output_tokens) == ("stop", 0)

        # Too long a chat is refused in words, and the worker goes on.
        worker.send(ask(9, "word " * (CONTEXT + 9)))
        async for event in worker.events():
            if isinstance(event, Failed):
                assert (event.kind, event.turn) == ("context_full", 9)
                assert str(CONTEXT) in event.reason
                break
        worker.send(ask(10, question))
        finished, _ = await wait_for(worker, Finished)
        assert finished.text == first

        # The answer ends where the context does, and says so.
        worker.send(ask(11, "word " * (CONTEXT - 60), most=500))
        finished, _ = await wait_for(worker, Finished)
        assert finished.reason == "context"
        assert finished.output_tokens < 100


async def failure_of(worker: Worker, load: LoadModel) -> Failed:
    worker.send(load)
    async for event in worker.events():
        assert not isinstance(event, Ready)
        if isinstance(event, Failed):
            return event
    raise AssertionError


def emptied(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


async def test_bad_checkpoints_fail_in_one_line(demo_base: Path, tmp_path: Path) -> None:
    def broken(name: str, spoil: Callable[[Path], object]) -> Path:
        copy = tmp_path / name
        shutil.copytree(demo_base, copy)
        spoil(copy)
        return copy

    weights = "model.safetensors"
    folders = [
        broken("truncated", lambda f: os.truncate(f / weights, 1_000_000)),
        broken("rubbish", lambda f: (f / weights).write_bytes(b"\xff" * 4096)),
        broken("config", lambda f: (f / "config.json").write_text("{")),
        broken("tokenizer", lambda f: (f / "tokenizer.json").write_text("[1]")),
        broken("pickled", lambda f: (f / weights).rename(f / "pytorch_model.bin")),
        broken("empty", emptied),
    ]
    async with running() as worker:
        for folder in folders:
            failure = await failure_of(worker, nf4(folder))
            assert failure.kind == "bad_checkpoint", failure
            assert "\n" not in failure.reason
            assert failure.hint
        plain = LoadModel("gptq", str(demo_base), {"kernel": "auto"})
        assert "quantize" in (await failure_of(worker, plain)).hint
        strange = LoadModel("gptq", str(demo_base), {"kernel": "warp"})
        failure = await failure_of(worker, strange)
        assert "warp" in failure.reason
        assert "marlin" in failure.hint
        there = LoadModel("transformers", str(demo_base), {}, device="cuda:63")
        assert "cuda:63" in (await failure_of(worker, there)).reason
        # After all that it still loads a good one.
        worker.send(nf4(demo_base))
        await wait_for(worker, Ready)


async def test_out_of_memory_is_said_as_such(demo_base: Path) -> None:
    """The address space is really bounded: torch asks for more than there is, and is told no."""
    async with running() as worker:
        worker.send(LoadModel("transformers", str(demo_base), {}, threads=1))
        await wait_for(worker, Ready)
        process = psutil.Process(worker.pid)
        bound = process.memory_info().vms + 100 * 2**20
        process.rlimit(psutil.RLIMIT_AS, (bound, resource.RLIM_INFINITY))
        wide = LoadModel("transformers", str(demo_base), {}, dtype="float32")  # 540 MB
        failure = await failure_of(worker, wide)
        assert failure.kind == "out_of_memory", failure
        assert failure.hint
        process.rlimit(psutil.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        # What was loaded before still answers.
        worker.send(ask(2, "What is the capital of France?"))
        finished, _ = await wait_for(worker, Finished)
        assert "Paris" in finished.text


async def test_a_killed_worker_is_told_by_its_signal() -> None:
    async with running() as worker:
        await wait_for(worker, Hello)
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(WorkerEnded) as ended:
            await wait_for(worker, Ready)
        assert ended.value.returncode == -signal.SIGKILL
        assert "signal 9" in ended.value.reason
        worker.send(Stop(1))  # to a worker that is gone: nothing happens


async def test_a_wrong_interpreter_is_one_line() -> None:
    with pytest.raises(UserError, match="cannot run the interpreter"):
        await start_worker(Place("x", python="/nowhere/python"))


OWNER = """
import asyncio, sys
from quantchat.host.worker_process import Place, start_worker
from quantchat.wire.messages import LoadModel

async def main():
    worker = await start_worker(Place("orphan"))
    worker.send(LoadModel("transformers", sys.argv[1], {}))
    print(worker.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.parametrize("while_loading", [True, False])
def test_no_worker_outlives_its_owner(demo_base: Path, while_loading: bool) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(demo_base)],
        stdout=subprocess.PIPE,
        text=True,
    ) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        worker = psutil.Process(pid)
        if while_loading:  # torch maps its libraries: it is in the middle of importing
            until(lambda: any("torch" in m.path for m in worker.memory_maps()))
        owner.kill()
    until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)


def until(condition: Callable[[], bool]) -> None:
    """Wait for `condition`, looking often."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.01)


async def test_closing_kills_what_the_worker_started(tmp_path: Path) -> None:
    """A compiler that a library started must not live on: the whole session goes."""
    wrapper, pid_file = tmp_path / "python", tmp_path / "pid"
    wrapper.write_text(
        f'#!/bin/sh\nsleep 600 &\necho $! > {pid_file}\nexec {sys.executable} "$@"\n'
    )
    wrapper.chmod(0o700)
    async with running(str(wrapper)) as worker:
        await wait_for(worker, Hello)
        child = psutil.Process(int(pid_file.read_text()))
        assert child.is_running()
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
