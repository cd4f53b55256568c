"""A name from outside creates no file outside its folder, and none that others can read."""

from __future__ import annotations

import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.safe_line import is_clean
from fakes.saved_snapshots import snapshot
from quantchat import paths
from quantchat.checkpoints.sources import ModelName
from quantchat.cli import main
from quantchat.host.logs import new_log
from quantchat.snapshot import store

LEADING_OUT = (
    "..", ".", "", "/", "../../etc/passwd", "/etc/passwd", "a/../../b", "~root", "a\0b", "-rf",
    ".hidden", "a\nb", "..\\..\\b", "x" * 5000, "\udcff", "\x1b]0;t\x07", "con", "日本", "…/…",
)  # fmt: skip

names = st.sampled_from(LEADING_OUT) | st.text(st.characters(), max_size=60)


@pytest.fixture(scope="module", autouse=True)
def home() -> Iterator[Path]:
    """A folder for all that is written here, of a user whose files others may read by default."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        for name in ("CONFIG", "CACHE", "SNAPSHOTS", "LOGS"):
            patch.setenv(f"QUANTCHAT_{name}", str(Path(folder, name.lower())))
        yield Path(folder)


def private_in(file: Path, folder: Path) -> None:
    """`file` lies right in `folder`, under a plain name, and both are the user's alone."""
    assert file.parent.resolve() == folder.resolve()
    assert file.resolve().parent == folder.resolve()
    assert is_clean(file.name) and not file.name.startswith((".", "-", "~"))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@given(names)
def test_a_snapshot_is_named_after_its_profile(name: str) -> None:
    file = store.save(snapshot(name=name))
    private_in(file, paths.snapshots_dir())
    file.unlink()


@given(names)
def test_a_log_is_named_after_its_variant(label: str) -> None:
    log = new_log(label)
    private_in(log, paths.logs_dir())
    log.unlink()


@given(names | names.map(lambda name: f"/models/{name}"))
def test_a_checkpoint_is_named_after_its_model(model: str) -> None:
    name = ModelName(model).slug
    assert Path(name).name == name  # one name, and none of the folders . and ..
    assert name.strip(".-") and is_clean(name) and len(name) <= 60
    assert not name.startswith((".", "-"))


@pytest.mark.parametrize("name", [name for name in LEADING_OUT if "\0" not in name])
def test_only_what_is_listed_can_be_removed(
    name: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outside = home / "outside"
    outside.mkdir(exist_ok=True)
    for word in (name, f"../{outside.name}", str(outside)):
        assert main(["cache", "remove", "--", word]) == 2
    assert outside.is_dir() and paths.cache_dir().parent.is_dir()
    assert all(is_clean(line) for line in capsys.readouterr().err.splitlines())
