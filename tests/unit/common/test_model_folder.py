"""Reading a model's small files, and refusing a model before its weights are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.model_folder import LLAMA_2_7B, gptq_tensors, write_model
from quantchat.checkpoints.headers import read_folder
from quantchat.common import model_folder
from quantchat.common.model_folder import (
    CONFIG,
    DESCRIBING,
    ModelFolder,
    Problem,
)
from quantchat.engines import auto_gptq, gptq
from quantchat.estimate.model_files import ModelFiles
from quantchat.wire.library import FolderReader
from quantchat.worker.failures import Refused
from quantchat.worker.model.files_check import check_files, check_kind

TRANSFORMERS = FolderReader()
GPTQMODEL = gptq.ENGINE.reader
AUTO_GPTQ = auto_gptq.ENGINE.reader

GPTQ = {
    "quant_method": "gptq",
    "bits": 4,
    "group_size": 128,
    "desc_act": False,
    "sym": True,
    "checkpoint_format": "gptq",
}
LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
MLX = {"group_size": 64, "bits": 4}


def folder(config: dict[str, Any], *names: str, **others: Any) -> ModelFolder:
    bodies = {f"{name}.json": body for name, body in others.items()}
    return ModelFolder({CONFIG: config, **bodies}, frozenset(names))


def first(described: ModelFolder, reader: FolderReader = TRANSFORMERS) -> Problem | None:
    return next(described.problems(reader), None)


def test_a_plain_model_and_a_gptq_one_have_no_problems() -> None:
    assert first(folder(LLAMA)) is None
    assert first(folder({**LLAMA, "quantization_config": GPTQ}, quantize_config=GPTQ)) is None
    # As auto-gptq saved it, without saying which method or format.
    old = {"bits": 4, "group_size": 128, "desc_act": False, "sym": True}
    both = folder({**LLAMA, "quantization_config": GPTQ}, quantize_config=old)
    assert first(both, GPTQMODEL) is None


@pytest.mark.parametrize("reader", [GPTQMODEL, AUTO_GPTQ, TRANSFORMERS])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("bits", 3),
        ("group_size", 64),
        ("desc_act", True),
        ("sym", False),
        ("checkpoint_format", "gptq_v2"),
        ("format", "gptq_v2"),
        ("quant_method", "awq"),
    ],
)
def test_two_files_that_disagree_are_both_named(reader: FolderReader, key: str, value: Any) -> None:
    other = {k: v for k, v in GPTQ.items() if (k, key) != ("checkpoint_format", "format")}
    other[key] = value
    found = first(folder({**LLAMA, "quantization_config": GPTQ}, quantize_config=other), reader)
    assert found and found.kind == "bad_checkpoint"
    assert "quantize_config.json says" in found.what and "config.json says" in found.what
    assert str(value).lower() in found.what.lower() and found.hint


def test_a_format_that_one_file_leaves_out_is_the_usual_one() -> None:
    unsaid = {k: v for k, v in GPTQ.items() if k != "checkpoint_format"}
    config = {**LLAMA, "quantization_config": unsaid}
    newer = {**GPTQ, "checkpoint_format": "gptq_v2"}
    assert first(folder(config, quantize_config=newer), GPTQMODEL) is not None
    assert first(folder(config, quantize_config=GPTQ), GPTQMODEL) is None


def test_autoawqs_spelling_is_understood() -> None:
    config = {
        **LLAMA,
        "quantization_config": {
            "quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm",
        },
    }  # fmt: skip
    other = {"zero_point": True, "q_group_size": 128, "w_bit": 4, "version": "GEMM"}
    assert first(folder(config, quant_config=other)) is None
    assert first(folder(config, quant_config={**other, "q_group_size": 64})) is not None


def test_a_quantization_that_one_engine_alone_reads_is_no_silent_loss() -> None:
    alone = folder(LLAMA, quantize_config=GPTQ)
    assert alone.quantization == GPTQ
    assert first(alone, GPTQMODEL) is None
    found = first(alone)
    assert found and "quantize_config.json" in found.what and "gptq" in found.hint


def test_the_text_part_may_tell_the_quantization() -> None:
    config = {"model_type": "kimi_k25", "text_config": {"quantization_config": GPTQ}}
    assert folder(config).quantization == GPTQ


def test_an_adapter_beside_the_weights_is_refused_and_not_put_on_in_silence() -> None:
    for reader in (TRANSFORMERS, GPTQMODEL):
        found = first(folder(LLAMA, "config.json", "adapter_config.json"), reader)
        assert found and "adapter_config.json" in found.what and "adapter" in found.hint


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}, "encoder"),
        ({"model_type": "bart", "is_encoder_decoder": True}, "bart"),
        ({"architectures": ["BertForMaskedLM"]}, "BertForMaskedLM"),
        ({"architectures": ["Qwen3ForSequenceClassification"]}, "not generate text"),
        ({**LLAMA, "quantization_config": {"quant_method": "exl3", "bits": 4.0}}, "ExLlamaV3"),
        ({**LLAMA, "quantization": MLX, "quantization_config": MLX}, "MLX"),
    ],
)
def test_what_transformers_cannot_answer_with_is_said_in_one_line(
    config: dict[str, Any], says: str
) -> None:
    found = first(folder(config))
    assert found and found.kind == "unsupported" and found.hint
    assert says in found.what and "\n" not in found.what


@pytest.mark.parametrize(
    ("config", "names", "reader", "package"),
    [
        ({"quantization_config": {"quant_method": "hqq"}}, (), TRANSFORMERS, "hqq"),
        (
            {"quantization_config": {"quant_method": "compressed-tensors"}},
            (),
            TRANSFORMERS,
            "compressed-tensors",
        ),
        ({"vision_config": {"model_type": "gemma3n_vision"}}, (), TRANSFORMERS, "timm"),
        ({"model_type": "qwen3_5"}, (), GPTQMODEL, "torchvision"),
        ({}, ("tokenizer.model",), TRANSFORMERS, "sentencepiece"),
        ({}, ("tokenizer.model", "tokenizer.json"), TRANSFORMERS, None),
        ({"quantization_config": GPTQ}, (), GPTQMODEL, None),  # its engine says so itself
    ],
)
def test_a_missing_package_is_named_with_its_install_line(
    monkeypatch: pytest.MonkeyPatch,
    config: dict[str, Any],
    names: tuple[str, ...],
    reader: FolderReader,
    package: str | None,
) -> None:
    monkeypatch.setattr(model_folder, "_is_installed", lambda module: False)
    found = next(folder(config, *names).missing_packages(reader), None)
    if package is None:
        assert found is None
    else:
        assert found and found.kind == "missing_library"
        assert package in found.what and f"pip install '{package}'" in found.hint
    monkeypatch.setattr(model_folder, "_is_installed", lambda module: True)
    assert not list(folder(config, *names).missing_packages(reader))


_values = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
_json = st.recursive(
    _values,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
_keys = st.sampled_from(
    [*GPTQ, "quantization_config", "text_config", "architectures", "model_type", "version"]
)
_bodies = st.dictionaries(_keys, _json | st.dictionaries(_keys, _json))


@given(
    st.dictionaries(st.sampled_from(DESCRIBING), _bodies),
    st.sampled_from([GPTQMODEL, TRANSFORMERS]),
)
def test_whatever_is_in_the_files_gives_a_description(bodies: Any, reader: FolderReader) -> None:
    described = ModelFolder(bodies, frozenset(bodies))
    assert described.quantization is None or isinstance(described.quantization, dict)
    for problem in [*described.problems(reader), *described.missing_packages(reader)]:
        assert problem.what and problem.hint
    assert ModelFiles(described.config, {}).bytes == 0


# ------------------------------------------------------------ in folders


def test_a_folder_is_refused_by_its_small_files_alone(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA, "quantization_config": GPTQ}))
    check_kind(str(tmp_path), GPTQMODEL)
    (tmp_path / "quantize_config.json").write_text(json.dumps({**GPTQ, "bits": 8}))
    with pytest.raises(Refused, match=r"quantize_config\.json says bits 8") as told:
        check_kind(str(tmp_path), GPTQMODEL)
    assert told.value.failure.kind == "bad_checkpoint"
    (tmp_path / "quantize_config.json").unlink()
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(Refused, match="adapter"):
        check_kind(str(tmp_path), GPTQMODEL)


def test_mistrals_own_tokenizer_is_called_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    (tmp_path / "tekken.json").write_text("{}")
    with pytest.raises(Refused, match=r"tekken\.json, Mistral's own") as told:
        check_files(str(tmp_path))
    assert "tokenizer" in told.value.failure.hint


def test_the_plan_reads_the_file_that_auto_gptq_wrote(tmp_path: Path) -> None:
    write_model(tmp_path, LLAMA_2_7B, gptq_tensors(LLAMA_2_7B, 4, 128))
    assert read_folder(tmp_path).quantization is None
    (tmp_path / "quantize_config.json").write_text(json.dumps({"bits": 4, "group_size": 128}))
    files = read_folder(tmp_path)
    assert files.quantization == {"bits": 4, "group_size": 128}
    assert "quantize_config.json" in files.names


@pytest.mark.parametrize("copied", [True, False])
def test_a_head_beside_the_embedding_counts_unless_it_is_a_copy(
    tmp_path: Path, copied: bool
) -> None:
    import torch
    from safetensors.torch import save_file

    embedding = torch.arange(4000, dtype=torch.float32).reshape(1000, 4)
    head = embedding.clone()
    if not copied:
        head[999] += 1
    tensors = {"model.embed_tokens.weight": embedding, "lm_head.weight": head}
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA, "tie_word_embeddings": True}))
    assert read_folder(tmp_path).bytes == 16_000 * (1 if copied else 2)
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    assert read_folder(tmp_path).bytes == 32_000
