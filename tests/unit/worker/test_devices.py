"""One device or several: which is chosen, which are refused, how memory is reported."""

from __future__ import annotations

import inspect
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from accelerate import dispatch_model, init_empty_weights

from fakes.saved_snapshots import LEDGER
from fakes.scripted_worker import model_info
from fakes.tiny_folder import tiny_folder
from fakes.tiny_llama import tiny_llama
from quantchat.app.widgets.live_panel import ledger_parts
from quantchat.common.memory_rules import WEIGHTS_SHARE
from quantchat.wire.messages import LoadModel
from quantchat.worker import memory
from quantchat.worker.decode.native_loop import NativeLoop
from quantchat.worker.decode.steps.eager import EagerStep
from quantchat.worker.failures import Refused
from quantchat.worker.loaders import load
from quantchat.worker.loaders.gptq import _only_on, _single_device
from quantchat.worker.model import devices, loaded

FREE = 1_000_000


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Two GPUs, each with `FREE` bytes free; collects which of them is made the current one."""
    current: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (FREE, 2 * FREE))
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    return current


@pytest.mark.parametrize(
    ("wish", "device"),
    [("auto", "cuda:0"), ("cuda", "cuda:0"), ("cuda:1", "cuda:1"), ("cpu", "cpu")],
)
def test_the_chosen_gpu_is_the_current_one(gpus: list[int], wish: str, device: str) -> None:
    assert devices.choose_device(wish) == device
    assert gpus == ([] if device == "cpu" else [int(device[-1])])


def test_the_gpu_of_a_loaded_model_is_the_current_one(
    gpus: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first GPU is full: transformers' device map puts all the weights on the second."""
    folder = tiny_folder(tmp_path)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (FREE * index, 2 * FREE))
    model = tiny_llama()
    monkeypatch.setattr(loaded.Loaded, "input_device", torch.device("cuda:1"))
    monkeypatch.setattr(
        transformers.AutoModelForCausalLM,
        "from_pretrained",
        lambda _model, **more: (model, {"missing_keys": []}),
    )
    load(LoadModel("transformers", str(folder), {}), lambda stage: None)
    assert gpus[-1] == 1
    monkeypatch.setattr(loaded.Loaded, "input_device", torch.device("cpu"))
    load(LoadModel("transformers", str(folder), {}, device="cpu"), lambda stage: None)
    assert gpus[-1] == 1


def test_a_gpu_that_is_not_there(gpus: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Refused, match="no device cuda:2: 2 CUDA devices found"):
        devices.choose_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices.choose_device("auto") == "cpu"
    with pytest.raises(Refused, match="no device cuda: 0 CUDA devices found"):
        devices.choose_device("cuda")
    assert gpus == []


def checkpoint(folder: Path, size: int) -> Path:
    """A folder whose weights, in two shards, take `size` bytes, with more that is no weight."""
    folder.mkdir()
    for shard in ("a", "b"):
        (folder / f"{shard}.safetensors").write_bytes(bytes(size // 2))
    (folder / "tokenizer.json").write_bytes(bytes(FREE))
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder


ROOM = int(WEIGHTS_SHARE * FREE)


def test_auto_asks_the_other_gpus_only_if_the_first_is_too_small(
    gpus: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def free(index: int) -> tuple[int, int]:
        asked.append(index)
        if index == 2:
            raise RuntimeError("CUDA error: out of memory")
        return FREE, 2 * FREE

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "mem_get_info", free)
    small = str(checkpoint(tmp_path / "small", ROOM))
    large = str(checkpoint(tmp_path / "large", ROOM + 2))
    for device in ("cuda:0", "cpu"):
        command = LoadModel("gptq", large, {}, device=device)
        assert devices.device_for(command) == device
        assert devices.room_by_gpu(command, device) == {}
    assert asked == []
    assert devices.device_for(LoadModel("gptq", small, {})) == "cuda:0"
    assert devices.room_by_gpu(LoadModel("gptq", small, {}), "cuda:0") == {}
    assert set(asked) == {0}
    assert devices.device_for(LoadModel("gptq", large, {})) == "cuda:0"
    assert devices.room_by_gpu(LoadModel("gptq", large, {}), "cuda:0") == {0: ROOM, 1: ROOM, 2: 0}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert devices.room_by_gpu(LoadModel("gptq", large, {}), "cuda:0") == {}


def test_auto_takes_the_first_gpu_that_has_room_for_all(
    gpus: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rather than be spread over that one and a full one: over several no step is captured."""
    free = [FREE // 10, FREE, FREE]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (free[index], FREE))
    command = LoadModel("transformers", str(checkpoint(tmp_path / "model", ROOM)), {})
    assert devices.device_for(command) == "cuda:1"
    assert devices.room_by_gpu(command, "cuda:1") == {}
    assert gpus == [1]
    assert devices.device_for(replace(command, device="cuda")) == "cuda:0"


def test_only_what_the_index_names_is_loaded(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "model", 40)
    assert devices.weights_on_disk(str(folder)) == 40
    index = {"weight_map": {"one": "a.safetensors", "two": "a.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert devices.weights_on_disk(str(folder)) == 20
    (folder / "model.safetensors.index.json").write_text("[]")
    assert devices.weights_on_disk(str(folder)) == 40


# ------------------------------------------------------------ transformers' device map


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    ("wish", "size", "given"),
    [
        ("cuda:1", 2 * FREE, {"device_map": {"": "cuda:1"}}),
        ("auto", ROOM, {"device_map": {"": "cuda:0"}}),
        ("auto", 2 * FREE, {"device_map": "sequential", "max_memory": {0: ROOM, 1: ROOM}}),
    ],
)
def test_transformers_is_told_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wish: str, size: int, given: dict[str, Any]
) -> None:
    told: dict[str, Any] = {}

    def from_pretrained(_model: str, **more: Any) -> tuple[Any, Any]:
        told.update(more)
        return tiny_llama(), {"missing_keys": []}

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", from_pretrained)
    command = LoadModel("transformers", str(checkpoint(tmp_path / "model", size)), {}, device=wish)
    loaded.load_model(command, devices.device_for(command))
    assert {name: told.get(name) for name in given} == given


@pytest.mark.parametrize(
    ("first", "second", "used"),
    [(1.5, 1.5, {0}), (0.7, 1.5, {0, 1}), (0.4, 0.4, {0, 1, "disk"})],
)
def test_transformers_goes_on_to_the_next_gpu(
    first: float, second: float, used: set[int | str]
) -> None:
    """`room_by_gpu` relies on it: the first GPU alone if that is enough, and never main memory."""
    from transformers.integrations.accelerate import _get_device_map

    with init_empty_weights():
        model = tiny_llama(num_hidden_layers=8, tie_word_embeddings=False)
    needed = sum(p.numel() * p.element_size() for p in model.parameters())
    given = {0: int(first * needed), 1: int(second * needed)}
    model.hf_device_map = _get_device_map(model, "sequential", given, None)
    assert set(model.hf_device_map.values()) == used
    if "disk" in used:
        with pytest.raises(Refused, match="the weights do not fit into 85% of the free memory"):
            devices.refuse_offloaded(model)
    else:
        devices.refuse_offloaded(model)


def test_bitsandbytes_refusal_is_told_in_our_words() -> None:
    with pytest.raises(Refused, match="do not fit"), loaded._offloading_refused():
        raise ValueError("Some modules are dispatched on the CPU or the disk. Make sure you …")
    with pytest.raises(ValueError, match="another"), loaded._offloading_refused():
        raise ValueError("another")


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    ("size", "place"), [(800_000, "cuda:0"), (1_500_000, None), (1_800_000, "refused")]
)
def test_gptqmodel_is_told_where(tmp_path: Path, size: int, place: str | None) -> None:
    model = str(checkpoint(tmp_path / "model", size))
    command = LoadModel("gptq", model, {})
    if place == "refused":
        with pytest.raises(Refused, match="do not fit"):
            _single_device(command, "cuda:0")
    else:
        assert _single_device(command, "cuda:0") == place
    assert _single_device(LoadModel("gptq", model, {}, device="cuda:1"), "cuda:1") == "cuda:1"


@pytest.mark.usefixtures("gpus")
def test_gptqmodel_keeps_to_one_gpu_where_it_is_told_one() -> None:
    """It deals the layers out to all there are: these are the functions by which it counts them."""
    from gptqmodel.models import loader

    def dealt() -> Any:
        wanted = loader.auto_select_device(loader.normalize_device("cuda:1"), None)
        return loader._layerwise_device_strings(wanted, loader._layerwise_device_count(wanted))

    assert dealt() == ["cuda:0", "cuda:1"]
    with _only_on("cuda:1"):
        assert dealt() == ["cuda:1"]
    assert dealt() == ["cuda:0", "cuda:1"]
    taken = inspect.getsource(loader).split("num_gpus = _layerwise_device_count(device)")
    assert len(taken) == 3, "GPTQModel places layers in another way now: look at _only_on"


def test_the_loop_runs_through_the_hooks_of_a_spread_model(tmp_path: Path) -> None:
    """Of two kinds of device this machine has memory and disk: accelerate's hooks are the same."""
    prompt = torch.tensor([[1, 2, 3, 4]])
    plain, spread = tiny_llama(), tiny_llama()
    places = {"model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk"}
    places |= {"model.layers.2": "cpu"}
    places |= {"model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu"}
    dispatch_model(spread, places, main_device="cpu", offload_dir=tmp_path, force_hooks=True)
    assert next(spread.model.layers[1].parameters()).device.type == "meta"
    expected, step = EagerStep(plain), EagerStep(spread)
    wanted, found = expected.run(prompt), step.run(prompt)
    for _ in range(8):
        assert torch.equal(found, wanted)
        token = wanted.argmax(dim=-1, keepdim=True)
        wanted, found = expected.run(token), step.run(token)
    NativeLoop(step, torch.device("cpu")).forget()
    assert step.kv_bytes() == 0


# ------------------------------------------------------------ what is told


def test_the_ledger_adds_the_gpus_up_and_tells_each(monkeypatch: pytest.MonkeyPatch) -> None:
    held = memory.TensorBytes(
        by_dtype=Counter(int32=70), by_device=Counter({"cuda:1": 30, "cuda:0": 40})
    )
    monkeypatch.setattr(memory.TensorBytes, "of", lambda model: held)
    figures = {
        "memory_allocated": {"cuda:0": 50, "cuda:1": 45},
        "memory_reserved": {"cuda:0": 64, "cuda:1": 60},
        "max_memory_reserved": {"cuda:0": 70, "cuda:1": 61},
    }
    for name, by_gpu in figures.items():
        monkeypatch.setattr(torch.cuda, name, by_gpu.__getitem__)
    ledger = memory.LedgerReader(None, "cuda:0").read(kv_cache=20)
    assert (ledger.weights, ledger.kv_cache, ledger.other_live, ledger.slack) == (70, 20, 5, 29)
    assert ledger.peak == 131
    assert ledger.weights_by_device == {"cuda:0": 40, "cuda:1": 30}
    assert ledger.reserved_by_device == {"cuda:0": 64, "cuda:1": 60}
    assert ledger.devices == ["cuda:0", "cuda:1"]
    assert ledger_parts(ledger)[-2:] == [("cuda:0", 64), ("cuda:1", 60)]

    held.by_device = Counter({"cuda:0": 70})
    alone = memory.LedgerReader(None, "cuda:0").read(kv_cache=20)
    assert (alone.slack, alone.peak, alone.devices) == (14, 70, ["cuda:0"])
    assert alone.weights_by_device == alone.reserved_by_device == {}
    assert LEDGER.devices == ["cpu"]


def test_where_it_runs_in_short() -> None:
    ran = replace(model_info(), device="cuda:0")
    assert ran.where == "cuda:0"
    assert replace(ran, devices=["cuda:0", "cuda:1", "cuda:3"]).where == "cuda:0+1+3"
