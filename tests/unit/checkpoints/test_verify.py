"""A flipped bit in a built checkpoint is found, and the checkpoint is rebuilt."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from fakes.scripted_jobs import Jobs
from fakes.tiny_wheel import TinyIndex
from quantchat.checkpoints import verify
from quantchat.checkpoints.builder import CheckpointBuilder
from quantchat.engines.bitsandbytes import BitsAndBytes
from quantchat.engines.variant import DEMO_MODEL
from quantchat.wire.messages import Progress

NF4 = BitsAndBytes(label="NF4", engine="bitsandbytes", model=DEMO_MODEL)
FLIPPED = "a checkpoint is damaged"


@dataclass(frozen=True)
class Shop:
    """Makes a new builder on the same cache, as the next start of quantchat does."""

    index: TinyIndex
    jobs: Jobs
    folder: Path

    async def prepare(self) -> tuple[Path, list[Progress]]:
        """Prepare NF4's base: its folder, and what was heard meanwhile."""
        heard: list[Progress] = []
        shop = CheckpointBuilder(
            self.jobs.start, self.folder, pip=self.index.pip(), wheel=self.index.wheel
        )
        return Path((await shop.prepare(NF4, heard.append)).model), heard


@pytest.fixture
def shop(tmp_path: Path, own_folders: None) -> Shop:
    return Shop(TinyIndex(tmp_path / "index"), Jobs(tmp_path), tmp_path / "cache")


def flip_a_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[7] ^= 1
    file.write_bytes(data)


async def test_it_is_told_and_made_again(shop: Shop) -> None:
    made, _ = await shop.prepare()
    flip_a_bit(made / "model.safetensors")
    again, heard = await shop.prepare()
    assert again == made
    assert heard[0].stage == FLIPPED and "model.safetensors" in heard[0].detail
    assert (made / "model.safetensors").read_bytes() == b"bf16" * 64
    assert shop.jobs.names() == ["dequantize", "dequantize"]
    _, heard = await shop.prepare()
    assert heard == []


async def test_a_large_one_is_read_again_once_a_week(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = await shop.prepare()
    monkeypatch.setattr(verify, "SMALL", 0)
    _, heard = await shop.prepare()
    assert {progress.stage for progress in heard} == {"verifying"}
    flip_a_bit(made / "model.safetensors")
    _, heard = await shop.prepare()
    assert heard == []  # it was read a moment ago
    long_ago = time.time() - verify.EVERY_S - 1
    os.utime(made / verify.STAMP, (long_ago, long_ago))
    _, heard = await shop.prepare()
    assert FLIPPED in {progress.stage for progress in heard}
