"""Tokenizers and chat templates that never end are interrupted, or end with their process."""

from __future__ import annotations

import contextlib
import json
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

import quantchat
from fakes.decoder_probe import Probe
from fakes.tiny_folder import tokenizer
from fakes.tiny_llama import tiny_llama
from quantchat.host.worker_process import WorkerEnded
from quantchat.wire.messages import Generate, Message, Sampling, Started
from quantchat.worker import text_bounds
from quantchat.worker.failures import Refused, describe
from quantchat.worker.model.chat_template import check_template
from quantchat.worker.text_bounds import Interrupted, bounded

LIMITS = (resource.RLIMIT_CPU, resource.RLIMIT_DATA, resource.RLIMIT_CORE)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_bounds, "SECONDS", 0.05)
    monkeypatch.setattr(text_bounds, "GRACE_S", 600)
    monkeypatch.setattr(text_bounds, "_TICK_S", 0.01)


class Heard:
    """Stands in for the outbox: what it was told."""

    def __init__(self) -> None:
        self.events: list[Started] = []
        self.ended: list[tuple[int, str, int]] = []
        self._tokens = 0

    def send(self, event: Started) -> None:
        self.events.append(event)

    def begin(self, turn: int, prompt: Sequence[int] = (), stop: Sequence[str] = ()) -> None:
        self._tokens = 0

    def token(self, token_id: int, time_ns: int) -> None:
        self._tokens += 1

    def complete(self, turn: int) -> bool:
        return False

    def end(self, turn: int, reason: str, finished_ns: int) -> None:
        self.ended.append((turn, reason, self._tokens))


def request(turn: int) -> Generate:
    """One that asks for four tokens."""
    return Generate(turn, [Message("user", "3 4 5")], Sampling(), 4, ignore_eos=True)


def for_ever() -> None:
    while True:
        pass


def test_what_computes_without_an_end_is_interrupted() -> None:
    refused = pytest.raises(Refused, match="reading the prompt takes more than")
    with refused as caught, bounded("reading the prompt"):
        for_ever()
    assert "tokenizer" in caught.value.failure.hint


def test_a_template_of_a_billion_steps_is_interrupted() -> None:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    text = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    template = ImmutableSandboxedEnvironment().from_string(text)
    with pytest.raises(Refused, match="takes more than"), bounded("it"):
        template.render()


def test_a_template_without_an_end_is_refused_while_it_is_tried() -> None:
    made = tokenizer()
    made.chat_template = (
        "{% for i in range(99999) %}{% for j in range(99999) %}{{ messages }}"
        "{% endfor %}{% endfor %}"
    )
    with pytest.raises(Refused, match="trying the chat template takes more than"):
        check_template(made, {})


def test_a_library_that_goes_on_is_refused_all_the_same() -> None:
    def swallow() -> None:
        with contextlib.suppress(Exception):
            for_ever()

    def wrap() -> None:
        try:
            for_ever()
        except Exception as error:
            raise ValueError("cannot read the tokenizer") from error

    for work in (swallow, wrap):
        with pytest.raises(Refused, match="takes more than"), bounded("it"):
            work()


def test_a_stop_interrupts_at_once() -> None:
    with pytest.raises(Interrupted), bounded("it", lambda: True):
        for_ever()


def test_a_stop_ends_an_answer_whose_prompt_is_still_read(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = Probe(tiny_llama(), "eager", long=8).decoder
    heard = Heard()
    monkeypatch.setattr(text_bounds, "SECONDS", 60)
    with monkeypatch.context() as patched:
        patched.setattr("quantchat.worker.decode.loop_decoder.encode_prompt", lambda *_: for_ever())
        decoder.answer(request(7), 5, heard, lambda turn: turn == 7)  # type: ignore[arg-type]
    assert heard.events == [Started(7, 5, 0, 0)]
    assert heard.ended == [(7, "stop", 0)]
    decoder.answer(request(8), 5, heard, lambda turn: False)  # type: ignore[arg-type]
    assert heard.ended[1:] == [(8, "length", 4)]  # and the next one is answered


def test_memory_that_is_not_given_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_bounds, "SECONDS", 60)
    monkeypatch.setattr(text_bounds, "MEMORY", 16 * 2**20)
    with pytest.raises(Refused, match="takes more than 0 GiB of memory"), bounded("it"):
        bytearray(2**26)
    bytearray(2**26)  # and afterwards it is


def test_afterwards_all_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_bounds, "SECONDS", 60)
    before = [resource.getrlimit(one) for one in LIMITS], signal.getsignal(signal.SIGPROF)
    with bounded("it"):
        within = [resource.getrlimit(one)[0] for one in LIMITS]
    assert ([resource.getrlimit(one) for one in LIMITS], signal.getsignal(signal.SIGPROF)) == before
    assert signal.getitimer(signal.ITIMER_PROF) == (0, 0)
    assert all(bound >= 0 for bound in within)


def test_in_another_thread_the_kernels_limits_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_bounds, "SECONDS", 60)
    found: list[int] = []

    def work() -> None:
        with bounded("it"):
            found.append(resource.getrlimit(resource.RLIMIT_CPU)[0])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found[0] >= 0


# ------------------------------------------------------------ native code


def ended(code: str, tmp_path: Path) -> WorkerEnded:
    """How a worker ends that does `code` within the bounds, and what its log says."""
    script = (
        f"import sys; sys.path.insert(0, {str(Path(quantchat.__file__).parents[1])!r})\n"
        "from quantchat.worker import text_bounds\n"
        "text_bounds.SECONDS, text_bounds.GRACE_S = 0.5, 0\n"
        "text_bounds.MEMORY = 200 * 2**20\n"
        "with text_bounds.bounded('it'):\n    "
    )
    with (tmp_path / "log").open("wb") as log:
        done = subprocess.run(
            [sys.executable, "-c", script + code], stdout=log, stderr=log, check=False
        )
    return WorkerEnded(done.returncode, tmp_path / "log")


def test_native_code_without_an_end_is_ended_by_the_kernel(tmp_path: Path) -> None:
    gone = ended("sum(range(10**13))", tmp_path)
    assert gone.returncode == -signal.SIGXCPU, gone.log.read_text()
    assert "did not finish" in gone.reason


def test_a_tokenizer_that_grows_its_text_is_ended(tmp_path: Path) -> None:
    """A normalizer that doubles the text forty times took 4.6 GB in 40 s while it was loaded."""
    doubling = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
    state = {
        "version": "1.0",
        "added_tokens": [
            {
                "id": 0,
                "content": "a",
                "normalized": True,
                "special": False,
                "lstrip": False,
                "rstrip": False,
                "single_word": False,
            }
        ],
        "normalizer": {"type": "Sequence", "normalizers": [doubling] * 40},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": None,
        "truncation": None,
        "padding": None,
        "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(state))
    file = str(tmp_path / "tokenizer.json")
    gone = ended(f"import tokenizers; tokenizers.Tokenizer.from_file({file!r})", tmp_path)
    assert gone.returncode in (-signal.SIGABRT, -signal.SIGXCPU), gone.log.read_text()
    assert "tokenizer" in gone.reason, gone.log.read_text()


def test_a_tokenizer_that_gives_up_is_no_damaged_checkpoint() -> None:
    kind = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})
    failure = describe(kind("called `Result::unwrap()`: retry-limit-in-match over"), loading="/m")
    assert failure.kind == "unsupported"
    assert "the tokenizer failed on this text" in failure.reason
    assert "model's files are complete" not in failure.hint
