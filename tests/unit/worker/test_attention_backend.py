"""The attention backend of torch that ran is recorded; cuDNN's has the lowest priority."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from fakes.saved_snapshots import MODEL_INFO
from fakes.tiny_folder import tiny_folder
from quantchat.host.worker_process import WORKER_VARIABLES
from quantchat.wire.messages import LoadModel
from quantchat.worker.decode.attention import BackendRecord
from quantchat.worker.decode.decoder import Decoder
from quantchat.worker.loaders import load


def attend(queries: int, keys: int, **options: Any) -> Any:
    query, key = torch.randn(1, 2, queries, 16), torch.randn(1, 2, keys, 16)
    return functional.scaled_dot_product_attention(query, key, key, **options)


def test_workers_put_cudnns_attention_last() -> None:
    assert WORKER_VARIABLES["TORCH_CUDNN_SDPA_DEPRIORITIZED"] == "1"


def test_torchs_own_choice_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def choice(query: Any, key: Any, *_: Any, **options: Any) -> int:
        asked.append((query.shape[-2], key.shape[-2], sorted(options)))
        return 3 if "attn_mask" in options else 1

    monkeypatch.setattr(torch, "_fused_sdp_choice", choice)
    original = functional.scaled_dot_product_attention
    record = BackendRecord()
    assert str(record) == ""
    with record.recording():
        found = attend(8, 8, is_causal=True)
        assert str(record) == "flash"
        attend(1, 9, attn_mask=torch.zeros(1, 1, 1, 9))
    assert found.shape == (1, 2, 8, 16)
    assert asked == [(8, 8, ["is_causal"]), (1, 9, ["attn_mask"])]
    assert str(record) == "flash, decode cudnn"
    assert functional.scaled_dot_product_attention is original


def test_a_call_with_wrong_arguments_fails_as_it_would() -> None:
    record = BackendRecord()
    with record.recording(), pytest.raises(RuntimeError):
        functional.scaled_dot_product_attention(
            torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 5), torch.zeros(1, 2, 3, 5)
        )
    assert str(record) == ""


@pytest.mark.parametrize("mode", ["auto", "generate"])
def test_a_loaded_variant_tells_its_backend(mode: str, tmp_path: Path) -> None:
    loaded = load(
        LoadModel("transformers", str(tiny_folder(tmp_path)), {}, device="cpu"), lambda stage: None
    )
    decoder = Decoder(loaded, mode, lambda stage: None)
    model_info = loaded.model_info(decoder.chosen.name, decoder.model_info().attention_backend)
    assert model_info.attention_used == "sdpa (flash)"  # the CPU's own flash attention


def test_what_is_not_known_is_not_named() -> None:
    assert MODEL_INFO.attention_used == MODEL_INFO.attention
