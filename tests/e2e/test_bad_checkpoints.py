"""A real worker names the damaged file of a real checkpoint in one line, and keeps running."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from fakes.tiny_checkpoint import write_checkpoint
from quantchat.host.worker_process import Place, Worker, start_worker
from quantchat.wire.messages import Failed, LoadModel, Ready
from quantchat.wire.protocol import Event

INDEX = "model.safetensors.index.json"
FIRST, LAST = "model-00001-of-00003.safetensors", "model-00003-of-00003.safetensors"

Spoil = Callable[[Path], object]


def flipped(file: str, at: int) -> Spoil:
    """One bit of `file` is another."""

    def spoil(folder: Path) -> None:
        data = bytearray((folder / file).read_bytes())
        data[at] ^= 0x40
        (folder / file).write_bytes(data)

    return spoil


def cut(file: str, length: int) -> Spoil:
    return lambda folder: os.truncate(folder / file, length)


def gone(file: str) -> Spoil:
    return lambda folder: (folder / file).unlink()


def holds(file: str, data: bytes) -> Spoil:
    return lambda folder: (folder / file).write_bytes(data)


def instead(file: str, old: bytes, new: bytes) -> Spoil:
    def spoil(folder: Path) -> None:
        data = (folder / file).read_bytes()
        assert old in data
        (folder / file).write_bytes(data.replace(old, new, 1))

    return spoil


def emptied(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


DAMAGE: dict[str, tuple[Spoil, str]] = {
    "shard missing": (gone(FIRST), f"{FIRST} is missing"),
    "shard cut short": (cut(FIRST, 20_000), f"{FIRST} is cut short: 18960 of 148224 bytes"),
    "shard empty": (cut(LAST, 0), f"{LAST} is cut short"),
    "shard too long": (instead(LAST, b'{"', b'{ "'), f"{LAST} "),
    "header length": (flipped(FIRST, 3), f"{FIRST} is cut short, or its header is damaged"),
    "header JSON": (flipped(FIRST, 40), f"{FIRST} has a damaged header"),
    "header offset": (instead(FIRST, b'offsets":[0,', b'offsets":[9,'), "invalid offset"),
    "header dtype": (instead(FIRST, b'"F32"', b'"X32"'), "X32"),
    "tensor renamed": (instead(FIRST, b"q_proj", b"r_proj"), "lacks the tensor model.layers.0"),
    "index missing": (gone(INDEX), f"{INDEX} is missing"),
    "index cut short": (cut(INDEX, 700), f"{INDEX} is not JSON"),
    "index empty": (cut(INDEX, 0), f"{INDEX} is not JSON"),
    "index a list": (holds(INDEX, b"[]"), f"{INDEX} is not a JSON object"),
    "index without map": (holds(INDEX, b"{}"), f"{INDEX} has no weight_map"),
    "index bit": (
        instead(INDEX, b"00001-of", b"00009-of"),
        "00009-of-00003.safetensors is missing",
    ),
    "config missing": (gone("config.json"), "config.json is missing"),
    "config cut short": (cut("config.json", 100), "config.json is not JSON"),
    "config a list": (holds("config.json", b"[]"), "config.json is not a JSON object"),
    "config type": (instead("config.json", b'"llama"', b'"lxama"'), "lxama"),
    "config width": (
        instead("config.json", b'size": 64', b'size": 32'),
        "other shapes than config",
    ),
    "config depth": (instead("config.json", b'layers": 3', b'layers": 4'), "9 tensors are missing"),
    "tokenizer missing": (gone("tokenizer.json"), "tokenizer.json is missing"),
    "tokenizer cut short": (cut("tokenizer.json", 300), "tokenizer.json is not JSON"),
    "tokenizer rubbish": (
        holds("tokenizer.json", b"\xff\x00\x1b[2J"),
        "tokenizer.json is not JSON",
    ),
    "tokenizer of nothing": (holds("tokenizer.json", b"{}"), "cannot load"),
    "tokenizer config": (cut("tokenizer_config.json", 20), "tokenizer_config.json is not JSON"),
    "all gone": (emptied, "is missing"),
}

Outcome = Ready | Failed


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """What one worker, which is never started anew, says of each damaged copy; last a whole one."""
    whole = write_checkpoint(tmp_path_factory.mktemp("whole"))

    async def load_each() -> dict[str, Outcome]:
        worker = await start_worker(Place("bad"))
        events = worker.events()
        try:
            said = {name: await _loaded(worker, events, whole, spoil) for name, spoil in SPOILS}
        finally:
            await worker.close()
        return said

    async def _loaded(
        worker: Worker, events: AsyncIterator[Event], base: Path, spoil: Spoil
    ) -> Outcome:
        folder = tmp_path_factory.mktemp("copy") / "model"
        shutil.copytree(base, folder)
        spoil(folder)
        worker.send(LoadModel("transformers", str(folder), {}, device="cpu", threads=1))
        return await _outcome(events)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUANTCHAT_LOGS", str(tmp_path_factory.mktemp("logs")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        return asyncio.run(load_each())


SPOILS: list[tuple[str, Spoil]] = [
    *((name, spoil) for name, (spoil, _) in DAMAGE.items()),
    ("whole", lambda folder: None),
]


async def _outcome(events: AsyncIterator[Event]) -> Outcome:
    async for event in events:
        if isinstance(event, Ready | Failed):
            return event
    raise AssertionError("unreachable: the events end with an exception")


@pytest.mark.parametrize("name", DAMAGE)
def test_it_is_one_line_that_names_the_file_and_a_cure(
    outcomes: dict[str, Outcome], name: str
) -> None:
    failure = outcomes[name]
    assert isinstance(failure, Failed), failure
    assert failure.kind == "bad_checkpoint"
    assert DAMAGE[name][1] in failure.reason
    assert len(failure.reason.splitlines()) == 1 and "Traceback" not in failure.reason
    assert failure.hint


def test_the_worker_loads_a_whole_one_after_all_that(outcomes: dict[str, Outcome]) -> None:
    assert isinstance(outcomes["whole"], Ready)
