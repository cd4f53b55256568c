"""`quantchat profiles` and `quantchat schema`."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

import pytest

from fakes.safe_line import is_clean
from quantchat.cli import main
from quantchat.profile.load import load
from quantchat.profile.schema import json_schema
from quantchat.profile.template import template
from quantchat.snapshot.schema import json_schema as snapshot_schema


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QUANTCHAT_CONFIG", str(tmp_path / "config"))


def said(args: list[str], capsys: pytest.CaptureFixture[str], *, status: int = 0) -> str:
    assert main(args) == status
    out, err = capsys.readouterr()
    assert err == ""
    return out


@pytest.mark.parametrize("args", [["profiles"], ["profiles", "list"]])
def test_list_groups_by_origin(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("profiles").mkdir()
    Path("profiles", "broken.toml").write_text("name = 1")
    Path("profiles", "\x1b[2J.toml").write_text(template())
    lines = said(args, capsys).splitlines()
    assert all(is_clean(line) for line in lines)
    here, shipped = lines.index("./profiles:"), lines.index("shipped:")
    mine, theirs = lines[here + 1 : shipped - 1], lines[shipped + 1 :]
    assert [line.split()[0] for line in mine] == ["␛[2J", "broken"]
    assert "invalid: profiles/broken.toml:1: name: must be text in quotes, not 1 …" in mine[1]
    demo = next(line for line in theirs if line.startswith("  demo "))
    assert "Demo: SmolLM2 135M, GPTQ against NF4: GPTQ 4-bit, quantized here" in demo


def test_list_names_the_folder_of_ones_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "config" / "profiles"
    own.mkdir(parents=True)
    (own / "mine.toml").write_text(template())
    assert f"your own ({own}):\n  mine " in said(["profiles"], capsys)


def test_list_keeps_to_the_width_of_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert max(map(len, said(["profiles"], capsys).splitlines())) <= 60


def test_show_prints_the_file_without_controls(capsys: pytest.CaptureFixture[str]) -> None:
    Path("p.toml").write_text("# a\x1b]0;b\x07\nname =\n")
    assert said(["profiles", "show", "p.toml"], capsys) == "# a␛]0;b␇\nname =\n"


def test_what_show_prints_is_a_profile(capsys: pytest.CaptureFixture[str]) -> None:
    Path("copy.toml").write_text(said(["profiles", "show", "nf4-vs-bf16"], capsys))
    assert load(Path("copy.toml")).name == "NF4 against bf16"


def test_check_says_good(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(["profiles", "check", "demo"], capsys) == "demo: valid, 3 variants\n"


def test_check_prints_every_mistake_of_every_file(capsys: pytest.CaptureFixture[str]) -> None:
    Path("p.toml").write_text(template() + "round = 3\nround2 = 1\n")
    out = said(["profiles", "check", "p.toml", "demo", "no.toml"], capsys, status=1)
    first, second, good, missing = out.splitlines()
    assert "run.round: unknown key" in first
    assert "run.round2: unknown key" in second
    assert good == "demo: valid, 3 variants"
    assert missing == "no.toml: cannot be read: No such file or directory"


NAMES_PATHS = """
name = "p"
[[variants]]
label = "one"
engine = "gptq"
model = "./one"
tokenizer = "~/chat"
adapter = "org/adapter"
python = "./venv/bin/python"
[[variants]]
label = "two"
engine = "gptq"
model = "org/two"
[variants.quantize]
calibration = "./text.txt"
[[variants]]
label = "three"
engine = "openai"
model = "./its own matter"
base_url = "http://127.0.0.1:8000/v1"
"""


def test_check_looks_for_what_is_to_be_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    Path("p.toml").write_text(NAMES_PATHS)
    assert said(["profiles", "check", "p.toml"], capsys, status=1).splitlines() == [
        f"p.toml:6: variants[1].model: no such folder: {tmp_path}/one",
        f"p.toml:7: variants[1].tokenizer: no such folder: {tmp_path}/home/chat",
        f"p.toml:9: variants[1].python: no such file: {tmp_path}/venv/bin/python",
        f"p.toml:15: variants[2].quantize.calibration: no such file: {tmp_path}/text.txt",
    ]
    for folder in ("one", "home/chat", "venv/bin"):
        Path(folder).mkdir(parents=True)
    Path("text.txt").touch()
    Path("venv/bin/python").touch()
    assert said(["profiles", "check", "p.toml"], capsys) == "p.toml: valid, 3 variants\n"


def test_new_writes_a_private_valid_profile_once(capsys: pytest.CaptureFixture[str]) -> None:
    out = said(["profiles", "new", "mine.toml"], capsys)
    assert out == "wrote mine.toml; edit it, then run: quantchat mine.toml\n"
    assert load(Path("mine.toml")).name == "My comparison"
    assert stat.S_IMODE(Path("mine.toml").stat().st_mode) == 0o600

    Path("mine.toml").write_text("mine")
    assert main(["profiles", "new", "mine.toml"]) == 2
    assert (
        capsys.readouterr().err
        == "quantchat: mine.toml: already exists (choose another file name)\n"
    )
    assert Path("mine.toml").read_text() == "mine"
    assert [path.name for path in Path().iterdir()] == ["mine.toml"]


def test_new_has_a_default_name(capsys: pytest.CaptureFixture[str]) -> None:
    said(["profiles", "new"], capsys)
    assert load(Path("comparison.toml"))


def test_new_leaves_nothing_half_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert main(["profiles", "new"]) == 2
    assert "comparison.toml: cannot be written: No space left" in capsys.readouterr().err
    assert list(Path().iterdir()) == []


def test_schema_is_printed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(said(["schema", "profile"], capsys)) == json_schema()
    assert json.loads(said(["schema", "snapshot"], capsys)) == snapshot_schema()
