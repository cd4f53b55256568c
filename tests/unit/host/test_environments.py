"""Environments with other library versions: a real venv and a real pip, without a network."""

from __future__ import annotations

import asyncio
import json
import stat
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from quantchat import cli
from quantchat.errors import UserError
from quantchat.host import pip as pips
from quantchat.host.environments import Environments, interpreter, read_requirements
from quantchat.profile.model import Profile
from quantchat.wire.messages import Progress

Main = Callable[..., tuple[int, str, str]]


@pytest.fixture
def index(own_folders: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where pip looks, and nowhere else: it has `tiny_thing` 1.0."""
    folder = tmp_path / "index"
    folder.mkdir()
    about = "tiny_thing-1.0.dist-info"
    with zipfile.ZipFile(folder / "tiny_thing-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_thing.py", "ANSWER = 42\n")
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: tiny_thing\nVersion: 1.0")
        tags = "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        wheel.writestr(f"{about}/WHEEL", tags)
        wheel.writestr(f"{about}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def main(index: Path, capsys: pytest.CaptureFixture[str]) -> Main:
    def call(*arguments: object) -> tuple[int, str, str]:
        status = cli.main(["env", *map(str, arguments)])
        return status, *capsys.readouterr()

    return call


def written(folder: Path, text: str = "# what is wanted\ntiny_thing==1.0\n") -> Path:
    file = folder / "requirements.txt"
    file.write_text(text)
    return file


def test_one_is_made_listed_used_and_removed(main: Main, tmp_path: Path) -> None:
    assert main()[1].startswith("no environments in ")
    status, out, _ = main("create", "tiny", "-r", written(tmp_path))
    assert status == 0 and 'env = "tiny"' in out
    folder = tmp_path / "cache" / "environments" / "tiny"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {one.name for one in folder.parent.iterdir()} == {"tiny", ".tiny.lock"}
    assert stat.S_IMODE((folder.parent / ".tiny.lock").stat().st_mode) == 0o600

    (told,) = json.loads(main("list", "--json")[1])["entries"]
    assert told["packages"] == {"tiny_thing": "1.0"}
    assert told["requirements"] == ["tiny_thing==1.0"]
    assert told["python"] == sys.version.split()[0]
    assert "tiny" in main("list")[1]
    python = interpreter(None, "tiny")
    assert python == told["interpreter"] == str(folder / "bin" / "python")

    async def answer() -> bytes:
        asked = await asyncio.create_subprocess_exec(
            str(python), "-c", "import tiny_thing; print(tiny_thing.ANSWER)", stdout=-1
        )
        return (await asked.communicate())[0]

    assert asyncio.run(answer()) == b"42\n"

    # As it is wanted already; and not as it is.
    assert main("create", "tiny", "-r", written(tmp_path))[0] == 0
    status, _, err = main("create", "tiny", "-r", written(tmp_path, "tiny_thing\n"))
    assert (
        status == 2
        and "already exists with other requirements (run `quantchat env remove tiny" in err
    )

    assert main("remove", "tiny")[:2] == (0, "removed tiny\n")
    assert not folder.exists()
    with pytest.raises(UserError, match="env tiny: no such environment"):
        interpreter(None, "tiny")


def test_what_pip_cannot_install_leaves_nothing(main: Main, tmp_path: Path) -> None:
    status, _, err = main("create", "tiny", "-r", written(tmp_path, "tiny_thing==2.0\n"))
    complaint = err.splitlines()[-1]
    assert status == 2 and complaint.startswith("quantchat: cannot make the environment tiny: ")
    assert "the package index that pip uses does not have this" in complaint
    assert [one.name for one in (tmp_path / "cache" / "environments").iterdir()] == [".tiny.lock"]


def test_what_killed_makers_left_goes_when_the_next_one_is_made(main: Main, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "environments"
    for name in ("killed", "busy"):
        (folder / f".{name}.tmp" / "pip-unpack").mkdir(parents=True)
        (folder / name / "bin").mkdir(parents=True)
    with FileLock(folder / ".busy.lock", timeout=0):
        assert main("create", "tiny", "-r", written(tmp_path))[0] == 0
    there = {one.name for one in folder.iterdir() if not one.name.endswith(".lock")}
    assert there == {"tiny", "busy", ".busy.tmp"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["create", "x"], "env x: no requirements are given; only auto-gptq and gguf have"),
        (["create", "../x", "-r", "r"], "../x: cannot be the name of an environment"),
        (["create", "x", "-r", "missing.txt"], "missing.txt: cannot be read: No such file"),
        (["create", "x", "--requirements", "empty.txt"], "empty.txt: has no requirements"),
        (["create", "x", "-r", "some.txt", "--python", "no-python"], "no-python -m venv failed"),
        (["create", "x", "-r", "some.txt", "--python", "/bin/false"], "/bin/false -m venv failed"),
        (["remove", "x"], "x: no such environment (`quantchat env` lists them)"),
    ],
)
def test_mistakes_are_one_line(
    main: Main,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").write_text("# nothing\n\n")
    Path("some.txt").write_text("tiny_thing\n")
    status, out, err = main(*arguments)
    *steps, complaint = err.splitlines()
    assert (status, out) == (2, "") and said in complaint
    assert steps in ([], ["making the environment"])
    assert not (tmp_path / "cache" / "environments" / "x").exists()


async def test_stopping_leaves_nothing(index: Path, tmp_path: Path) -> None:
    found = Environments(tmp_path / "environments")
    told: list[Progress] = []
    slow = (sys.executable, "-c", "import time; time.sleep(600)")
    making = asyncio.ensure_future(found.create("tiny", ["tiny_thing"], told.append, pip=slow))
    while not any(one.stage == "installing libraries" for one in told):
        await asyncio.sleep(0.02)
    assert (found.folder / "tiny" / "bin" / "python").exists()
    assert [one.python for one in found.entries()] == [""]
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making
    assert found.entries() == []


async def test_one_that_was_never_finished_is_told_and_made(index: Path, tmp_path: Path) -> None:
    found = Environments(tmp_path / "environments")
    (found.folder / "tiny" / "bin").mkdir(parents=True)
    with pytest.raises(UserError, match="this environment was never finished"):
        found.find("tiny")
    made = await found.create("tiny", ["tiny_thing"], lambda told: None)
    assert found.find("tiny") == made


async def test_one_at_a_time(tmp_path: Path) -> None:
    found = Environments(tmp_path)
    with (
        FileLock(tmp_path / ".tiny.lock"),
        pytest.raises(UserError, match="env tiny: another quantchat process is making"),
    ):
        await found.create("tiny", ["tiny_thing"], lambda told: None)


@given(st.binary())
def test_any_file_is_requirements_or_a_complaint(tmp_path_factory: object, data: bytes) -> None:
    file = Path(str(tmp_path_factory.mktemp("r")), "r.txt")  # type: ignore[attr-defined]
    file.write_bytes(data)
    try:
        found = read_requirements(file)
    except UserError as error:
        assert str(file) in str(error)
    else:
        assert found and all(line.strip() and not line.startswith("#") for line in found)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"engine": "gptq", "python": "p", "env": "e"}, "both name an interpreter"),
        ({"engine": "auto-gptq"}, "needs an environment of its own: `quantchat env create"),
        ({"engine": "gptq", "env": "../e"}, "should match pattern"),
    ],
)
def test_a_variant_names_one_interpreter(more: dict[str, str], said: str) -> None:
    variants = [{"label": "a", "model": "org/m", **more}, {"label": "b", "model": "org/m", **more}]
    with pytest.raises(ValueError, match=said):
        Profile.model_validate({"name": "p", "variants": variants})


def test_pip_is_this_interpreters() -> None:
    assert pips.PIP[0] == sys.executable
