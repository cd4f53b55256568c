"""Reading the header of a GGUF file, and reporting a damaged one."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.gguf_file import gguf_bytes, string
from quantchat.checkpoints.gguf_header import read_gguf
from quantchat.errors import UserError
from quantchat.estimate.architecture import read_architecture

SHAPES = {"token_embd.weight": (97, 64), "blk.0.attn_norm.weight": (64,)}
CONFIG = {"num_hidden_layers": 6, "hidden_size": 64, "num_attention_heads": 4, "sliding_window": 9}
WHOLE = gguf_bytes(SHAPES, CONFIG)


def test_types_and_shapes_are_those_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(WHOLE)
    found = read_gguf(tmp_path / "m.gguf")
    assert {name: tensor.shape for name, tensor in found.tensors.items()} == SHAPES
    assert {tensor.dtype for tensor in found.tensors.values()} == {"Q4_0"}
    assert found.bytes == (97 * 64 + 64) // 32 * 18
    assert found.config["vocab_size"] == 97
    shape = read_architecture(found.config)
    assert shape is not None
    assert (shape.layers, shape.heads, shape.kv_cache(100)) == (6, 4, 100 * 6 * 2 * 64)


def test_a_window_is_read_where_transformers_reads_it(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(gguf_bytes(SHAPES, CONFIG, "gemma2"))
    shape = read_architecture(read_gguf(tmp_path / "m.gguf").config)
    assert shape is not None
    assert [cache.window for cache in shape.caches] == [8, None] * 3


def test_the_package_reads_the_same(tmp_path: Path) -> None:
    import numpy
    from gguf import GGUFWriter

    writer = GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_block_count(6)
    writer.add_embedding_length(64)
    writer.add_head_count(4)
    writer.add_token_list(["a", "b"])
    for name, shape in SHAPES.items():
        writer.add_tensor(name, numpy.zeros(shape, numpy.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = read_gguf(tmp_path / "m.gguf")
    assert {name: tensor.shape for name, tensor in found.tensors.items()} == SHAPES
    assert found.config["hidden_size"] == 64


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "is no GGUF file"),
        (b"PK\x03\x04", "is no GGUF file"),
        (b"GGUF" + struct.pack("<I", 1), "has GGUF version 1; quantchat reads versions 2 and 3"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0), "damaged header"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**60), "damaged header"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + string("k") + struct.pack("<I", 99), "type"),
        (
            b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + string("k") + struct.pack("<IIQ", 9, 9, 1),
            "a value of an unknown type: 9",
        ),
    ],
)
def test_what_is_wrong_is_said(body: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(body)
    with pytest.raises(UserError, match=said) as caught:
        read_gguf(tmp_path / "m.gguf")
    assert "m.gguf" in str(caught.value)
    with pytest.raises(UserError, match="cannot be read"):
        read_gguf(tmp_path / "gone.gguf")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(0, len(WHOLE)),
    st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), max_size=4),
)
def test_any_damage_is_refused_or_read(
    tmp_path: Path, cut: int, changes: list[tuple[int, int]]
) -> None:
    damaged = bytearray(WHOLE)
    for place, value in changes:
        damaged[place] = value
    (tmp_path / "m.gguf").write_bytes(damaged[:cut])
    try:
        found = read_gguf(tmp_path / "m.gguf")
    except UserError:
        return
    assert found.bytes >= 0
    read_architecture(found.config)
