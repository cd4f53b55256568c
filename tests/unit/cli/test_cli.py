"""The command line from outside: arguments in, output and exit status out."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import quantchat
from fakes.safe_line import is_clean
from quantchat.app import gc_tuning
from quantchat.cli import main, root
from quantchat.errors import UserError
from quantchat.profile.model import Profile
from quantchat.profile.template import template

HEAVY = ("torch", "transformers", "textual", "rich", "pydantic", "psutil")


def quantchat_process(
    *args: str, stdout: int = subprocess.PIPE, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a fresh interpreter with the arguments."""
    source = str(Path(quantchat.__file__).parents[1])
    return subprocess.run(
        [sys.executable, *args],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": source, **(env or {})},
        text=True,
        check=False,
    )


@pytest.fixture
def opened(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> list[tuple[Profile | None, Path | None]]:
    """What the screen was called with; there is a terminal, and the screen itself is left out.

    `capsys` fixes what stdout is; it is another one in each phase of a test, of one type.
    """
    calls: list[tuple[Profile | None, Path | None]] = []

    def run(
        profile: Profile | None, *, snapshots: Path | None, low_bandwidth: bool | None = None
    ) -> int:
        calls.append((profile, snapshots))
        return 0

    monkeypatch.setitem(sys.modules, "quantchat.app", SimpleNamespace(run=run, gc_tuning=gc_tuning))
    for stream in (sys.stdin, sys.stdout):
        monkeypatch.setattr(type(stream), "isatty", lambda _: True, raising=False)
    return calls


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QUANTCHAT_CONFIG", str(tmp_path / "config"))


@pytest.mark.parametrize(
    ("args", "env", "expected"),
    [
        (["demo"], None, None),
        (["--low-bandwidth", "demo"], None, True),
        (["demo", "--no-few-bytes"], "1", False),
        ([], "1", True),
        (["--low-bandwidth", "vote", "demo"], None, True),
        # The former name.
        (["--few-bytes", "demo"], None, True),
        (["--few-bytes", "vote", "--no-low-bandwidth", "demo"], None, False),
        (["vote", "demo"], "1", True),
        (["vote", "demo"], None, None),
    ],
)
def test_low_bandwidth(
    args: list[str],
    env: str | None,
    expected: bool | None,
    opened: list[tuple[Profile | None, Path | None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[bool | None] = []

    def run(
        profile: object, *, snapshots: object, low_bandwidth: bool | None, **votes: object
    ) -> int:
        said.append(low_bandwidth)
        return 0

    monkeypatch.setattr(sys.modules["quantchat.app"], "run", run)
    monkeypatch.delenv("QUANTCHAT_FEW_BYTES", raising=False)
    if env is not None:
        monkeypatch.setenv("QUANTCHAT_FEW_BYTES", env)
    assert main(args) == 0
    assert said == [expected]
    assert gc.isenabled()


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("quantchat: ")
    return line.removeprefix("quantchat: ")


# ---------------------------------------------------------------- a fresh interpreter


@pytest.mark.parametrize(
    ("args", "heavy"),
    [
        (["--help"], HEAVY),
        (["--version"], HEAVY),
        (["profiles", "--help"], ("torch", "transformers", "textual")),
        (["profiles"], ("torch", "transformers", "textual")),
        (["schema", "profile"], ("torch", "transformers", "textual")),
    ],
)
def test_nothing_heavy_is_imported(args: list[str], heavy: Sequence[str]) -> None:
    code = (
        "import sys; from quantchat.cli import main; status = main(sys.argv[1:]);"
        "print(status, *sys.modules, file=sys.stderr)"
    )
    result = quantchat_process("-c", code, *args)
    status, *modules = result.stderr.split()
    assert status == "0"
    assert "click" in modules
    assert not {module.partition(".")[0] for module in modules} & set(heavy)


def test_the_module_runs() -> None:
    result = quantchat_process("-m", "quantchat", "--version")
    assert (result.returncode, result.stdout) == (0, f"quantchat {quantchat.__version__}\n")


def test_without_a_terminal_nothing_is_opened() -> None:
    for args in ([], ["demo"]):
        result = quantchat_process("-m", "quantchat", *args)
        assert result.returncode == 2
        assert result.stdout == ""
        assert "needs a terminal" in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_a_reader_that_leaves_is_no_failure() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        result = quantchat_process("-m", "quantchat", "schema", "profile", stdout=writer)
    finally:
        os.close(writer)
    assert (result.returncode, result.stderr) == (0, "")


def test_an_output_that_lacks_the_letters_is_no_crash() -> None:
    Path("p.toml").write_text("# \x1b")
    result = quantchat_process(
        "-m", "quantchat", "profiles", "show", "p.toml", env={"PYTHONIOENCODING": "latin-1"}
    )
    assert (result.returncode, result.stdout) == (0, "# \\u241b")


# ---------------------------------------------------------------- opening


def test_alone_it_opens_the_start_screen(
    opened: list[tuple[Profile | None, Path | None]],
) -> None:
    assert main([]) == 0
    assert main(["--snapshots", "here"]) == 0
    assert opened == [(None, None), (None, Path("here"))]


@pytest.mark.parametrize(
    "args",
    [["demo", "--snapshots", "dir"], ["--snapshots", "dir", "demo"], ["--snapshots=dir", "demo"]],
)
def test_a_name_opens_its_profile(
    args: list[str], opened: list[tuple[Profile | None, Path | None]]
) -> None:
    assert main(args) == 0
    ((profile, snapshots),) = opened
    assert profile is not None
    assert profile.name.startswith("Demo")
    assert snapshots == Path("dir")


def test_a_profile_called_like_a_command_opens_by_its_path(
    opened: list[tuple[Profile | None, Path | None]],
) -> None:
    Path("schema.toml").write_text(template())
    assert main(["./schema.toml"]) == main(["schema.toml"]) == 0
    assert [profile is not None for profile, _ in opened] == [True, True]


def test_the_screens_exit_status_is_kept(monkeypatch: pytest.MonkeyPatch, opened: object) -> None:
    monkeypatch.setattr(sys.modules["quantchat.app"], "run", lambda *_, **__: 129)
    assert main(["demo"]) == 129


def test_an_interrupt_is_quiet(
    monkeypatch: pytest.MonkeyPatch, opened: object, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["quantchat.app"], "run", interrupted)
    assert main(["demo"]) == 130
    assert capsys.readouterr().err.strip() == ""


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["dmo"], 'no profile, command or folder is called "dmo" (did you mean "demo"? Looked'),
        (["profils"], 'no profile, command or folder is called "profils" (did you mean "profil'),
        (["zzz"], 'no profile, command or folder is called "zzz" (looked for in ./profiles, '),
        (["./zzz"], "./zzz: there is no such file or folder"),
        (["no.toml"], "no.toml: cannot be read: No such file or directory"),
        (["--bad"], "No such option"),
        (["demo", "--bad"], "No such option"),
        (
            ["demo", "x"],
            '"demo" is a profile (--with, --gptq, --save-profile and further names can',
        ),
        (["demo", "--with", "nf4"], '"demo" is a profile (--with, --gptq'),
        (["schema"], "Missing command. (see `quantchat schema --help`)"),
        (["profiles", "show"], "Missing argument 'NAME'. (see `quantchat profiles show --help`)"),
        (["profiles", "new", "mine"], "mine: the name of a profile must end in .toml"),
        (["profiles", "new", "no/x.toml"], "no/x.toml: cannot be written: No such file or direct"),
    ],
)
def test_bad_input_is_one_line(
    args: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(args) == 2
    assert complaint(capsys).startswith(said)


def test_each_mistake_of_a_profile_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("p.toml").write_text(template() + "round = 3\nwarm-up = 1\n")
    last = len(Path("p.toml").read_text().splitlines())
    assert main(["p.toml"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f'quantchat: p.toml:{last - 1}: run.round: unknown key (did you mean "rounds"?)',
        f'quantchat: p.toml:{last}: run.warm-up: unknown key (did you mean "warmup"?)',
    ]


def test_what_an_error_says_cannot_act_on_the_terminal(
    monkeypatch: pytest.MonkeyPatch, opened: object, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object, **__: object) -> int:
        raise UserError("\x1b]52;c;aGk=\x07", where="a\nb")

    monkeypatch.setattr(sys.modules["quantchat.app"], "run", fails)
    assert main(["demo"]) == 2
    assert complaint(capsys) == "a b: ␛]52;c;aGk=␇"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(word=st.text().map(lambda text: f"a{text}"))
def test_any_word_is_answered_in_clean_lines(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word]) == 2
    assert all(is_clean(line) for line in capsys.readouterr().err.splitlines())


def test_self_check_is_a_hidden_old_name_of_agreement(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["self-check", "--help"]) == 0
    old = capsys.readouterr().out
    assert old.startswith("Usage: quantchat agreement")
    assert main(["agreement", "--help"]) == 0
    assert capsys.readouterr().out == old
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out
    assert "agreement" in listed and "self-check" not in listed


def test_no_command_gives_two_options_one_name() -> None:
    context = click.Context(root)
    for name in root.list_commands(context):
        command = root.get_command(context, name)
        assert command is not None
        options = [word for param in command.params for word in param.opts + param.secondary_opts]
        assert len(options) == len(set(options)), name
