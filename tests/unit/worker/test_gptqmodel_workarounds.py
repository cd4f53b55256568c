"""The workarounds fix GPTQModel and are undone afterwards."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace

import accelerate
import pytest
import torch
from gptqmodel.looper import gptq_checkpoint
from gptqmodel.looper.checkpoint_store import CheckpointConfig, CheckpointCorrupt, CheckpointStore
from gptqmodel.looper.module_looper import ModuleLooper
from gptqmodel.utils import looper_helpers
from gptqmodel.utils import model as gptqmodel_model

from fakes.hub_folder import as_in_hub_cache
from quantchat.worker.jobs.gptqmodel_workarounds import add_file_digest, follow_links, only_on
from quantchat.worker.loaders.gptq import in_memory


def model_in(folder: Path) -> SimpleNamespace:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return SimpleNamespace(model_local_path=str(folder))


def test_a_model_of_the_hubs_cache_is_known_by_what_its_links_lead_to(tmp_path: Path) -> None:
    own = gptq_checkpoint._source_identity
    with add_file_digest():
        plain = own(model_in(tmp_path / "plain"))
    linked = model_in(tmp_path / "snapshots" / "abc")
    as_in_hub_cache(tmp_path / "snapshots" / "abc")
    with follow_links(), add_file_digest():
        assert gptq_checkpoint._source_identity(linked) == plain
        (tmp_path / "blobs" / f"{1:040x}").write_bytes(b"others")
        changed = gptq_checkpoint._source_identity(linked)["model.safetensors"]
        assert changed == hashlib.sha256(b"others").hexdigest()
    assert gptq_checkpoint._source_identity is own


def test_what_is_kept_can_be_compared_on_python_3_10(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(hashlib, "file_digest", raising=False)
    layer = b"a layer" * 2**18  # more than is read at once
    with add_file_digest(), CheckpointStore(CheckpointConfig(tmp_path)) as store:
        kept = store.put(layer)
        assert store.object_path(kept).read_bytes() == layer
        (tmp_path / "objects" / kept).write_bytes(b"damaged")
        with pytest.raises(CheckpointCorrupt):
            store.object_path(kept)
    assert not hasattr(hashlib, "file_digest")


def test_weights_are_not_written_to_a_temporary_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    options: list[dict[str, object]] = []

    def record(*_args: object, **named: object) -> None:
        options.append(named)

    monkeypatch.setattr(accelerate, "load_checkpoint_in_model", record)
    with in_memory():
        gptqmodel_model.load_checkpoint_in_model_then_tie_weights(
            SimpleNamespace(tie_weights=lambda: None), checkpoint=None, offload_state_dict=True
        )
    assert options == [{"checkpoint": None, "offload_state_dict": False}]
    assert accelerate.load_checkpoint_in_model is record


@pytest.mark.parametrize("chosen", ["cuda:0", "cuda:1"])
def test_of_several_gpus_only_the_chosen_one_works(
    monkeypatch: pytest.MonkeyPatch, chosen: str
) -> None:
    gpus = [torch.device("cuda", index) for index in range(3)]
    monkeypatch.setattr(looper_helpers, "ALL_DEVICES", gpus)

    def working() -> set[str]:
        looper = object.__new__(ModuleLooper)  # its own way of choosing, without a model
        looper._primary_quant_device = looper_helpers.normalize_device_like(chosen)
        looper._quant_devices = looper_helpers.select_forward_devices(looper._primary_quant_device)
        looper._dense_quant_devices = looper._moe_quant_devices = looper._quant_devices
        looper.gptq_model = SimpleNamespace(quantize_config=SimpleNamespace())
        return {name for pool in looper.execution_device_pools().values() for name in pool}

    assert working() == {"cuda:0", "cuda:1", "cuda:2"}
    with only_on(chosen):
        assert working() == {chosen}
    assert gpus == looper_helpers.ALL_DEVICES
