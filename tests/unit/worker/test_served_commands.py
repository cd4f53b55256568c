"""Every command with a server in the profile: it works, or refuses in one line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fakes.openai_server import CHUNKS, FakeServer, serving
from quantchat.cli import main
from quantchat.wire.messages import LoadModel
from quantchat.worker.failures import Refused
from quantchat.worker.servers.remote import RemoteDecoder

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
"""
ONE_PROMPT = ["--prompt", "Where?"]


class Commands:
    """The commands, with what they print."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys
        self.said = self.complained = ""

    def profile(self, url: str, more: str = "") -> str:
        path = self.folder / "p.toml"
        path.write_text(TOML.format(url=url, more=more))
        return str(path)

    def do(self, *words: str) -> int:
        status = main(list(words))
        self.said, self.complained = self._capsys.readouterr()
        return status

    @property
    def refusal(self) -> str:
        """The complaint: the one line that is no progress."""
        lines = [one for one in self.complained.splitlines() if one.startswith("quantchat: ")]
        (line,) = lines
        assert "Traceback" not in self.complained
        return line

    def snapshots(self) -> list[str]:
        return sorted(map(str, (self.folder / "saved").glob("*.json")))


@pytest.fixture
def commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(tmp_path, capsys)


def test_run_and_run_again_where_it_is_trusted(commands: Commands, server: FakeServer) -> None:
    saved = ["--save", str(commands.folder / "saved")]
    profile = commands.profile(server.url)
    assert commands.do("run", profile, *ONE_PROMPT, "--rounds", "2", *saved) == 0
    assert "first answer" in commands.said
    (first,) = commands.snapshots()

    # Whoever made a snapshot does not choose whom our prompts and keys go to.
    before = len(server.requests)
    assert commands.do("rerun", first, *saved) == 2
    assert f'"one" asks the server at {server.url}' in commands.refusal
    assert "--trust" in commands.refusal and len(server.requests) == before

    assert commands.do("rerun", first, "--trust", *saved) == 0
    assert len(commands.snapshots()) == 2
    assert commands.do("compare", *commands.snapshots()) == 0
    report = commands.folder / "report.md"
    assert commands.do("report", first, "-o", str(report)) == 0
    assert "".join(CHUNKS) in report.read_text()


def test_a_key_that_a_snapshot_would_send_is_named(
    commands: Commands, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    profile = commands.profile(server.url, 'key_env = "HF_TOKEN"')
    saved = ["--save", str(commands.folder / "saved")]
    assert commands.do("run", profile, *ONE_PROMPT, "--rounds", "1", *saved) == 0
    assert commands.do("rerun", commands.snapshots()[0]) == 2
    assert "with the key in HF_TOKEN" in commands.refusal


def test_a_run_whose_server_refuses_meanwhile_is_kept_and_fails(
    commands: Commands, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(self: FakeServer) -> str:  # both are warm, and one prompt is answered
        return "429" if len(self.requests) > 6 else "ok"

    monkeypatch.setattr(FakeServer, "behaviour", property(told))
    saved = ["--save", str(commands.folder / "saved")]
    given = [*ONE_PROMPT, "--rounds", "3", "--warmup", "0", *saved]
    assert commands.do("run", commands.profile(server.url), *given) == 1
    assert "answers failed, the first: the server at" in commands.said
    assert "it says 429" in commands.said and len(commands.snapshots()) == 1


def test_a_run_without_its_server_is_one_line(commands: Commands) -> None:
    with serving() as gone:
        profile = commands.profile(gone.url)
    assert commands.do("run", profile, *ONE_PROMPT) == 1
    assert "no connection to the server at 127.0.0.1" in commands.refusal
    assert "start the server" in commands.refusal


def test_score_and_quantize_refuse(commands: Commands, server: FakeServer) -> None:
    profile = commands.profile(server.url)
    assert commands.do("score", profile) == 2
    assert "no variant says which model it was made from" in commands.refusal
    assert commands.do("quantize", profile, "-o", str(commands.folder / "made")) == 2
    assert commands.refusal
    assert server.requests == []


def test_prompts_cannot_be_cut_to_tokens(commands: Commands, server: FakeServer) -> None:
    profile = commands.profile(server.url)
    given = ["--prompt-tokens", "32", "--output-tokens", "4", "--rounds", "1"]
    assert commands.do("run", profile, *ONE_PROMPT, *given) == 2
    assert "reports no token ids" in commands.refusal
    assert server.requests == []


def test_the_plan_knows_what_it_does_not_know(commands: Commands, server: FakeServer) -> None:
    assert commands.do("plan", commands.profile(server.url)) == 1  # of both nothing is known
    where = server.url.split("/")[2]
    told = f"not known: one and other: the free memory of {where} is not known"
    assert told in commands.said and "/v1" not in commands.said
    started = commands.profile(
        "http://127.0.0.1:{port}/v1", 'server = { command = ["vllm", "serve"] }'
    )
    text = Path(started).read_text()
    Path(started).write_text(text.replace("{port}/v1", "9/v1").replace(":9/v1", ":{port}/v1", 1))
    assert commands.do("plan", started) == 1
    assert "a server started here" in commands.said and "{port}" not in commands.said


@pytest.mark.parametrize(("behaviour", "same"), [("ok", "1 of 1"), ("fickle", "0 of 1")])
def test_agreement_compares_what_a_server_says(
    commands: Commands, server: FakeServer, behaviour: str, same: str
) -> None:
    server.behaviour = behaviour
    assert commands.do("self-check", commands.profile(server.url), *ONE_PROMPT) == 0
    (line, *_) = [one for one in commands.said.splitlines() if "one at a time, again" in one]
    assert same in line
    if behaviour == "fickle":
        assert f"character {len(''.join(CHUNKS)) + 2} of" in line
    assert "the server has no /tokenize" in commands.said  # so it cannot be given its tokens


def test_the_client_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(Refused, match="not installed: openai") as refused:
        RemoteDecoder(
            LoadModel("openai", "tiny", {"api": "chat", "base_url": "http://x/v1", "timeout_s": 1})
        )
    assert refused.value.failure.hint == "python -m pip install 'quantchat[servers]'"
