"""Environments without a home directory, a temporary folder or the standard streams."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

import quantchat
from fakes.saved_snapshots import snapshot
from quantchat import paths
from quantchat.cli import main
from quantchat.errors import UserError
from quantchat.host.worker_process import Place, start_worker
from quantchat.snapshot import store

FOLDERS = {
    "QUANTCHAT_CONFIG": paths.config_dir,
    "QUANTCHAT_CACHE": paths.cache_dir,
    "QUANTCHAT_SNAPSHOTS": paths.snapshots_dir,
    "QUANTCHAT_LOGS": paths.logs_dir,
}


@pytest.fixture
def homeless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's user: no HOME, no passwd entry, no XDG folder."""
    for name in list(os.environ):
        if name in ("HOME", *FOLDERS) or name.startswith(("XDG_", "HF_", "HUGGINGFACE_")):
            monkeypatch.delenv(name)

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.chdir(tmp_path)


# ------------------------------------------------------------ no home directory


@pytest.mark.usefixtures("homeless")
@pytest.mark.parametrize("variable", FOLDERS)
def test_a_folder_that_is_named_needs_no_home(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="no home directory") as caught:
        FOLDERS[variable]()
    assert variable in caught.value.hint
    monkeypatch.setenv(variable, str(tmp_path / "own"))
    assert FOLDERS[variable]() == tmp_path / "own"
    monkeypatch.setenv(variable, "~/own")
    with pytest.raises(UserError, match="no home directory"):
        FOLDERS[variable]()


COMMANDS = [
    ["profiles"],
    ["profiles", "show", "demo"],
    ["snapshots"],
    ["cache"],
    ["env", "list"],
    ["report", "x", "-o", "y.html"],
    ["compare", "x", "y"],
    ["rerun", "x"],
    ["plan", "demo"],
    ["doctor"],
    ["run", "demo"],
    ["eval", "demo", "--tasks", "own"],
]


@pytest.mark.usefixtures("homeless")
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_each_command_ends_with_one_line(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 2
    assert "no home directory" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.usefixtures("homeless")
@pytest.mark.parametrize("command", [["profiles"], ["snapshots"], ["cache"], ["env", "list"]])
def test_with_its_folders_named_a_command_works(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in FOLDERS:
        monkeypatch.setenv(variable, str(tmp_path / variable))
    assert main(command) == 0


async def environment() -> dict[str, str]:
    """What a worker finds that has begun: until then its environment may read as none."""
    worker = await start_worker(Place("test"))
    try:
        await anext(worker.events())
        return psutil.Process(worker.pid).environ()
    finally:
        await worker.close()


@pytest.mark.usefixtures("homeless")
async def test_a_worker_without_a_home_is_given_folders_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Libraries expand ~ to itself then, and would make a folder of that name wherever they are."""
    for variable in FOLDERS:
        monkeypatch.setenv(variable, str(tmp_path / variable))
    for name in ("USER", "LOGNAME"):
        monkeypatch.delenv(name, raising=False)
    found = await environment()
    cache = tmp_path / "QUANTCHAT_CACHE"
    assert found["HOME"] == str(cache)
    assert found["USER"] == str(os.getuid())
    assert found["HF_HOME"] == str(cache / "huggingface")


# ------------------------------------------------------------ folders of the hub's libraries


@pytest.mark.usefixtures("own_folders")
async def test_no_library_chooses_a_folder_that_all_users_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GPTQModel's tokenizer library sets HF_HOME to /tmp/tokenicer_hf_home where it is not set."""
    for name in ("HF_HOME", "HF_MODULES_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    found = await environment()
    usual = tmp_path / ".cache" / "huggingface"
    assert (found["HF_HOME"], found["HF_HUB_CACHE"]) == (str(usual), str(usual / "hub"))
    assert found["HF_MODULES_CACHE"] == str(paths.cache_dir() / "modules")
    mode = os.stat(found["HF_MODULES_CACHE"]).st_mode  # noqa: PTH116
    assert mode & 0o777 == 0o700  # it holds code that is run


@pytest.mark.usefixtures("own_folders")
async def test_what_the_user_has_set_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"HF_HOME": "/a", "HF_HUB_CACHE": "/b", "HF_MODULES_CACHE": "/c"}
    for name, folder in own.items():
        monkeypatch.setenv(name, folder)
    found = await environment()
    assert {name: found[name] for name in own} == own


@pytest.mark.usefixtures("own_folders")
async def test_a_cache_that_is_read_only_and_empty_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GPTQModel makes the hub's folder when it is imported, and could not be imported."""
    monkeypatch.setattr("quantchat.paths.can_be_written", lambda folder: False)
    found = await environment()
    assert found["HF_HUB_CACHE"] == str(paths.cache_dir() / "huggingface" / "hub")
    (tmp_path / "hf" / "hub").mkdir(parents=True)
    found = await environment()
    assert found["HF_HUB_CACHE"] == str(tmp_path / "hf" / "hub")


@pytest.mark.usefixtures("own_folders")
@pytest.mark.parametrize(
    ("variables", "hub"),
    [
        ({"HF_HUB_CACHE": "/one", "HUGGINGFACE_HUB_CACHE": "/two", "HF_HOME": "/three"}, "/one"),
        ({"HUGGINGFACE_HUB_CACHE": "/two", "HF_HOME": "/three"}, "/two"),
        ({"HF_HOME": "/three", "XDG_CACHE_HOME": "/four"}, "/three/hub"),
        ({"XDG_CACHE_HOME": "/four"}, "/four/huggingface/hub"),
        ({"HF_HOME": "$THERE/five", "THERE": "/there"}, "/there/five/hub"),
        ({}, "/home/me/.cache/huggingface/hub"),
    ],
)
def test_the_hubs_cache_is_where_its_library_has_it(
    variables: dict[str, str], hub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """See the library's `constants.py`, which is asked too: in a process that begins so."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/me", **variables}.items():
        monkeypatch.setenv(name, value)
    assert str(paths.hub_cache()) == hub
    code = "from huggingface_hub import constants; print(constants.HF_HUB_CACHE)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == hub


# ------------------------------------------------------------ no temporary folder


@pytest.mark.usefixtures("own_folders")
async def test_without_a_temporary_folder_there_is_one_in_the_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp', '/var/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    monkeypatch.delenv("TMPDIR", raising=False)
    assert paths.temporary_dir() == paths.cache_dir() / "tmp"
    assert (await environment())["TMPDIR"] == str(paths.cache_dir() / "tmp")


# ------------------------------------------------------------ closed streams

NOTHING_BUT_A_MODULE_PATH = {
    "PATH": os.environ["PATH"],
    "PYTHONPATH": str(Path(quantchat.__file__).parents[1]),
}


@pytest.mark.parametrize("closed", ["<&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_command_works_without_a_standard_stream(closed: str, tmp_path: Path) -> None:
    """Daemons and some CI runners begin programs so; the two print to one stream each."""
    variables = {name: str(tmp_path / name) for name in FOLDERS} | NOTHING_BUT_A_MODULE_PATH
    for words, status in (("profiles list", 0), ("snapshots show nothing", 2)):
        line = f'exec "$0" -m quantchat {words} {closed}'
        done = subprocess.run(
            ["sh", "-c", line, sys.executable],
            cwd=tmp_path,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stderr
        assert done.returncode == status, done


def test_what_is_opened_next_is_not_mixed_up_with_a_stream(tmp_path: Path) -> None:
    """A file opened after the start would have got descriptor 1, and what is printed with it."""
    code = (
        "from quantchat.console.streams import open_closed_streams\n"
        "open_closed_streams()\n"
        f"file = open({str(tmp_path / 'f')!r}, 'w')\n"
        "print('printed')\n"
        "assert file.fileno() > 2\n"
    )
    line = 'exec "$0" -c "$1" <&- >&- 2>&-'
    subprocess.run(
        ["sh", "-c", line, sys.executable, code], env=NOTHING_BUT_A_MODULE_PATH, check=True
    )
    assert (tmp_path / "f").read_text() == ""


# ------------------------------------------------------------ a notebook, odd locales


@pytest.mark.parametrize(
    "variables",
    [
        {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "LC_ALL": "xx_YY.no-such"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"},
    ],
    ids=["notebook", "ascii"],
)
def test_a_report_is_drawn_whatever_the_environment(
    variables: dict[str, str], tmp_path: Path
) -> None:
    file = store.save(snapshot(), tmp_path)
    words = ["report", str(file), "-o", str(tmp_path / "page-ä.html")]
    done = subprocess.run(
        [sys.executable, "-m", "quantchat", *words],
        env={**os.environ, **NOTHING_BUT_A_MODULE_PATH, **variables},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr


async def test_a_workers_libraries_draw_on_no_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    assert (await environment())["MPLBACKEND"] == "agg"
