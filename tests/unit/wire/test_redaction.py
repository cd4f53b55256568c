"""Secrets of the environment are removed from everything that is written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.scripted_worker import Script, ScriptedProvider, starter
from quantchat.cli import main
from quantchat.features.measure.printing import measure_and_print
from quantchat.host.worker_process import Place, start_worker
from quantchat.measuring.rounds import Plan, Task
from quantchat.profile.model import Profile
from quantchat.session.comparison import Comparison
from quantchat.wire.jobs import InspectKernelsJob, Workspace
from quantchat.wire.messages import Failed, Generate
from quantchat.wire.redaction import redacted, secrets
from quantchat.worker.failures import Refused, describe

CANARY = "hf-canary-7Qz4Lw9"
VARIABLES = ["HF_TOKEN", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD", "github_pat"]


@pytest.fixture(autouse=True)
def canary(monkeypatch: pytest.MonkeyPatch, own_folders: None) -> None:
    monkeypatch.setenv("HF_TOKEN", CANARY)
    monkeypatch.setenv("PIP_INDEX_URL", "https://me:index-canary-1@index.invalid/simple")


@pytest.mark.parametrize("name", VARIABLES)
def test_each_kind_is_known_by_its_name(name: str) -> None:
    assert redacted(f"Bearer {CANARY}!", secrets({name: CANARY})) == f"Bearer [{name}]!"


def test_what_only_looks_like_one_is_left() -> None:
    harmless = {"TOKENIZERS_PARALLELISM": "false", "PASSWORD_STORE_DIR": "/home/me", "KEY": "short"}
    assert secrets(harmless) == {}
    assert redacted("hf_xet is not installed") == "hf_xet is not installed"


@pytest.mark.parametrize(
    "value",
    [
        "lm-studio", "LM-Studio", "not-needed", "no-key-required", "sk-no-key-required",
        "token-abc123", "your-api-key-here", "measurement", "quantchat", "in-turn", "Changeme",
    ],
)  # fmt: skip
def test_placeholders_and_words_are_no_secrets(value: str) -> None:
    assert secrets({"OPENAI_API_KEY": value, "URL": f"http://{value}@host"}) == {}


@pytest.mark.parametrize(
    "value", ["correct-horse-battery", "hunter2hunter2", "sk-proj-Ab12Cd34", "12345678", "aBcDeFgH"]
)
def test_what_is_long_or_no_word_is_a_secret(value: str) -> None:
    assert secrets({"DB_PASSWORD": value}) == {value: "DB_PASSWORD"}


def test_logins_in_addresses_and_stored_tokens() -> None:
    said = redacted("GET https://me:index-canary-1@index.invalid with hf_" + "a1B2" * 8)
    assert said == "GET https://me:[PIP_INDEX_URL]@index.invalid with [token]"


@given(st.text(min_size=8, max_size=40), st.text(), st.text())
def test_none_is_left_in_any_text(secret: str, before: str, after: str) -> None:
    if secret not in "[HF_TOKEN]" and secret not in "[token]":
        assert secret not in redacted(secret, {secret: "HF_TOKEN"})
        text = before + secret + after
        if text.find(secret) == len(before):  # else it begins in what is before it
            assert redacted(text, {secret: "HF_TOKEN"}).startswith(before)


@pytest.mark.parametrize(
    "error", [OSError(f"401 for {CANARY}"), Refused("internal", CANARY, CANARY), KeyError(CANARY)]
)
def test_a_workers_failure_does_not_quote_it(error: Exception) -> None:
    failure = describe(error, loading=f"/models/{CANARY}"[:8])
    assert CANARY not in failure.reason + failure.hint
    assert "[HF_TOKEN]" in failure.reason


async def test_a_workers_log_does_not_hold_it(tmp_path: Path) -> None:
    """A real worker, whose exception and print quote its environment."""
    worker = await start_worker(Place("leaky"))
    for folder in ("/nowhere", f"/nowhere/{CANARY}"):
        worker.send(InspectKernelsJob(Workspace(scratch=folder, output=folder), []))
    failures: list[Failed] = []
    async for event in worker.events():
        if isinstance(event, Failed):
            failures.append(event)
            if len(failures) == 2:
                break
    await worker.close()
    assert CANARY not in failures[1].reason
    log = worker.log.read_text()
    assert "Traceback" in log and CANARY not in log and "[HF_TOKEN]" in log


def test_a_whole_run_writes_it_nowhere(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """In an answer's failure, in a variant's, and in an exception that nobody foresaw."""

    def leak(request: Generate) -> str:
        return f"My token is {CANARY}"

    failing = Script(answer_fails=Failed("internal", f"401: {CANARY}", CANARY), fails_after=2)
    scripts = {"A": Script(answer=leak), "B": failing}
    plain = {"engine": "transformers", "model": "not/loaded"}
    profile = {"name": "Two", "variants": [{**plain, "label": label} for label in scripts]}
    sides = Comparison(
        Profile.model_validate(profile),
        provider=ScriptedProvider(scripts),
        start=starter(scripts, tmp_path / "snapshots"),
    )
    (tmp_path / "snapshots").mkdir()
    assert (
        measure_and_print(sides, Plan((Task("one"),), rounds=1, warmup=0), None, as_json=True) == 1
    )
    (file,) = (tmp_path / "snapshots").glob("*.json")
    assert main(["report", str(file), "-o", str(tmp_path / "report.html")]) == 0
    assert main(["snapshots", "show", file.stem]) == 0
    captured = capfd.readouterr()
    written = [captured.out, captured.err]
    written += [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert not [text for text in written if CANARY in text]
    assert "[HF_TOKEN]" in captured.out


def test_a_mistake_of_ours_does_not_print_it() -> None:
    code = (
        "import os\nfrom quantchat.console.streams import neutral_output\n"
        "with neutral_output():\n    raise RuntimeError(os.environ['HF_TOKEN'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "RuntimeError: [HF_TOKEN]" in done.stderr and CANARY not in done.stderr
