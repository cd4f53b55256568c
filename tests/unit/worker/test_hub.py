"""A model named by its id: downloaded once, found offline afterwards, or a clear error."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes.fake_hub import COMMIT, ask_at, serving
from fakes.tiny_checkpoint import write_checkpoint
from quantchat.files import sha256
from quantchat.wire.messages import LoadModel
from quantchat.worker import loaders
from quantchat.worker.failures import Refused
from quantchat.worker.model import hub

NAME = "org/tiny"


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """The repository on the hub, with what other libraries want beside what transformers does."""
    folder = write_checkpoint(tmp_path / "hub" / NAME)
    for other in ("consolidated.safetensors", "pytorch_model.bin", "README.md"):
        (folder / other).write_bytes(bytes(1000))
    (folder / "original").mkdir()
    (folder / "original" / "params.json").write_text("{}")
    return folder


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let huggingface_hub ask the hub at an address, with a cache of its own."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))

    def turn(address: str) -> None:
        ask_at(address, monkeypatch)

    return turn


def quiet(_done: int, _total: int) -> None:
    pass


def names(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def test_a_variant_of_a_hub_is_fetched_once_and_loads_without_a_network(
    there: Path, at: Callable[[str], None], tmp_path: Path
) -> None:
    stages: list[str] = []
    told: list[tuple[int, int]] = []
    command = LoadModel("transformers", NAME, {}, dtype="float32")
    with serving(tmp_path / "hub") as (address, asked):
        at(address)
        loaded = loaders.load(command, stages.append, lambda *counts: told.append(counts))
    assert stages == ["fetching the model", "importing libraries", "loading weights"]
    assert told and all(0 < done <= total for done, total in told)
    fetched = {request.rpartition("/")[2] for request in asked if request.startswith("GET /org")}
    assert "model.safetensors.index.json" in fetched
    assert not fetched & {"consolidated.safetensors", "pytorch_model.bin", "README.md"}
    ran = loaded.model_info("eager")
    assert ran.model == NAME
    assert (
        len(ran.checkpoint_hash) == 64
    )  # of what was fetched: two commits of an id are told apart

    at("http://127.0.0.1:9")  # where nobody listens
    again = loaders.load(command, stages.append)
    assert again.model_info("eager") == ran
    assert loaded.note == ""
    assert "loaded the copy in the hub's cache" in again.note


def test_what_another_library_fetched_is_enough(
    there: Path, at: Callable[[str], None], tmp_path: Path
) -> None:
    import huggingface_hub

    wanted = names(there) - {"README.md", "generation_config.json", "pytorch_model.bin"}
    with serving(tmp_path / "hub") as (address, _):
        at(address)
        for name in wanted - {"consolidated.safetensors", "original/params.json"}:
            huggingface_hub.hf_hub_download(NAME, name)
    at("http://127.0.0.1:9")
    folder, note = hub.checkpoint(LoadModel("transformers", NAME, {}), quiet)
    assert folder.name == COMMIT
    assert "loaded the copy in the hub's cache" in note
    assert names(folder) >= {"config.json", "model.safetensors.index.json", "tokenizer.json"}


@pytest.mark.parametrize("engine", ["transformers", "bitsandbytes", "gptq"])
def test_what_is_gated_is_no_damaged_checkpoint(
    engine: str, at: Callable[[str], None], tmp_path: Path
) -> None:
    options = {"quant_type": "nf4", "double_quant": True, "compute_dtype": "auto"}
    with serving(tmp_path, gated=True) as (address, _):
        at(address)
        with pytest.raises(Refused, match=f"cannot download {NAME} from the hub: .*401") as caught:
            loaders.load(LoadModel(engine, NAME, options), lambda stage: None)
    assert caught.value.failure.kind == "fetch_failed"
    assert "hf auth login" in caught.value.failure.hint


def test_no_network_and_nothing_here(at: Callable[[str], None]) -> None:
    at("http://127.0.0.1:9")
    with pytest.raises(Refused, match="cannot download org/tiny from the hub") as caught:
        loaders.load(LoadModel("transformers", NAME, {}), lambda stage: None)
    assert "the network" in caught.value.failure.hint


@pytest.mark.parametrize("allowed", [False, True])
def test_pickled_weights_are_not_even_fetched(
    there: Path, at: Callable[[str], None], tmp_path: Path, allowed: bool
) -> None:
    for shard in there.glob("*.safetensors*"):
        shard.unlink()
    options: dict[str, Any] = {"allow_pickle": allowed}
    command = LoadModel("transformers", NAME, options)
    with serving(tmp_path / "hub") as (address, _):
        at(address)
        if allowed:
            assert "pytorch_model.bin" in names(hub.checkpoint(command, quiet).folder)
            return
        with pytest.raises(Refused, match="org/tiny has no safetensors") as caught:
            hub.checkpoint(command, quiet)
    assert "allow_pickle = true" in caught.value.failure.hint
    with serving(tmp_path / "hub") as (address, _), pytest.raises(Refused) as caught:
        at(address)
        hub.checkpoint(replace(command, engine="gptq", options={}), quiet)  # which opens none
    assert "allow_pickle" not in caught.value.failure.hint
    assert not list((tmp_path / "hf").rglob("*.bin"))


@pytest.mark.filterwarnings("ignore:Not enough free disk space")  # the hub's own, while fetching
def test_the_disk_is_looked_at_before_anything_is_fetched(
    there: Path,
    at: Callable[[str], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command, cache = LoadModel("transformers", NAME, {}), tmp_path / "hf"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    (shard, *_) = (there / f"model-0000{n}-of-00002.safetensors" for n in (1, 2))
    shard.write_bytes(bytes(5 * 2**20))
    wanted = [f for f in there.iterdir() if f.suffix in {".json", ".safetensors"}]
    total = sum(f.stat().st_size for f in wanted if not f.name.startswith("consolidated"))
    real = shutil.disk_usage(tmp_path)

    def have(free: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda place: real._replace(free=free))

    def requests(asked: list[str]) -> list[str]:
        return [one for one in asked if "/resolve/" in one and one.startswith("GET")]

    have(2 * 2**20)
    with serving(tmp_path / "hub") as (address, asked):
        at(address)
        with pytest.raises(Refused) as caught:
            hub.checkpoint(command, quiet)
        assert requests(asked) == []
        failure = caught.value.failure
        assert failure.kind == "no_space"
        assert failure.reason == (
            f"the disk has no room to download {NAME}: 5 MiB are needed, 2 are free in {cache}"
        )
        assert "HF_HOME" in failure.hint
        # What another process has on the disk already, or has begun, is not needed once more.
        blobs = cache / "models--org--tiny" / "blobs"
        blobs.mkdir(parents=True, exist_ok=True)
        half = blobs / f"{sha256(shard)}.0a1b2c3d.incomplete"
        half.write_bytes(bytes(2**20))
        have(total - 2**20)
        hub.checkpoint(command, quiet)
        half.unlink(missing_ok=True)
        have(0)
        # All is here, under this name and under another that holds the same.
        count = len(requests(asked))
        hub.checkpoint(command, quiet)
        (cache / "models--org--tiny" / "refs" / "main").unlink()
        hub.checkpoint(command, quiet)
        assert len(requests(asked)) == count


def test_of_a_gguf_repository_one_file_is_fetched(
    there: Path, at: Callable[[str], None], tmp_path: Path
) -> None:
    for file in ("q4.gguf", "q8.gguf"):
        (there / file).write_bytes(bytes(100))
    shutil.rmtree(there / "original")
    command = LoadModel("transformers", NAME, {"gguf_file": "q4.gguf"})
    with serving(tmp_path / "hub") as (address, _):
        at(address)
        folder = hub.checkpoint(command, quiet).folder
    assert names(folder) & {"q4.gguf", "q8.gguf", "model-00001-of-00002.safetensors"} == {"q4.gguf"}


# ------------------------------------------------------------ a cache or a hub that is at fault


def read_only(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Let nothing be written into the hub's cache, whoever runs the tests."""
    import huggingface_hub

    download = huggingface_hub.snapshot_download

    def refusing(*given: Any, **named: Any) -> str:
        if named.get("local_files_only"):
            return str(download(*given, **named))
        place = str(cache / "models--org--tiny" / "blobs" / "0a1b")
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), place)

    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refusing)


def test_a_cache_that_is_read_only_gives_what_it_has(
    there: Path, at: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub has a newer commit, and the cache, which several users share, cannot take it."""
    command = LoadModel("transformers", NAME, {})
    with serving(tmp_path / "hub") as (address, _):
        at(address)
        first = hub.checkpoint(command, quiet)
        read_only(monkeypatch, tmp_path / "hf")
        again = hub.checkpoint(command, quiet)
    assert again.folder == first.folder
    assert "Permission denied" in again.note and "may be old" in again.note


def test_a_cache_that_is_read_only_and_empty_is_named(
    there: Path, at: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_only(monkeypatch, tmp_path / "hf")
    with serving(tmp_path / "hub") as (address, _), pytest.raises(Refused) as caught:
        at(address)
        hub.checkpoint(LoadModel("transformers", NAME, {}), quiet)
    failure = caught.value.failure
    assert failure.kind == "fetch_failed"
    assert "the hub's cache cannot be used" in failure.reason
    assert "HF_HOME" in failure.hint


@pytest.mark.parametrize("cached", [True, False])
def test_a_login_page_in_the_hubs_place(
    cached: bool, there: Path, at: Callable[[str], None], tmp_path: Path
) -> None:
    command = LoadModel("transformers", NAME, {})
    if cached:
        with serving(tmp_path / "hub") as (address, _):
            at(address)
            hub.checkpoint(command, quiet)
    with serving(tmp_path / "hub", login_page=True) as (address, _):
        at(address)
        if cached:
            assert "no JSON" in hub.checkpoint(command, quiet).note
            return
        with pytest.raises(Refused, match="no JSON") as caught:
            hub.checkpoint(command, quiet)
    assert address in caught.value.failure.reason
    assert "login page" in caught.value.failure.hint


@pytest.mark.parametrize("missing", ["model-00001-of-00003.safetensors", "tokenizer.json"])
def test_a_copy_with_holes_is_not_taken(
    missing: str,
    there: Path,
    at: Callable[[str], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = LoadModel("transformers", NAME, {})
    with serving(tmp_path / "hub") as (address, _):
        at(address)
        hub.checkpoint(command, quiet)
        (file,) = (tmp_path / "hf").rglob(f"snapshots/*/{missing}")
        file.unlink()
        read_only(monkeypatch, tmp_path / "hf")
        with pytest.raises(Refused, match="cannot download org/tiny from the hub"):
            hub.checkpoint(command, quiet)
