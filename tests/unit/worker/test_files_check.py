"""Any content of a checkpoint's files is accepted, or refused with the file's name."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantchat.worker.failures import Refused
from quantchat.worker.model.files_check import check_files

HEADER = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
WHOLE = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}",
    "model.safetensors": len(HEADER).to_bytes(8, "little") + HEADER + bytes(8),
}


def write(folder: Path, **files: bytes) -> str:
    for name, data in {**WHOLE, **files}.items():
        (folder / name).write_bytes(data)
    return str(folder)


def test_a_whole_one_passes_and_so_does_a_hubs(tmp_path: Path) -> None:
    check_files(write(tmp_path))
    check_files("org/name")


@given(
    name=st.sampled_from(sorted(WHOLE)),
    at=st.integers(0, 100),
    bit=st.integers(0, 7),
    cut=st.booleans(),
)
def test_damage_is_refused_by_name_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, name: str, at: int, bit: int, cut: bool
) -> None:
    data = bytearray(WHOLE[name])
    at %= len(data)
    if cut:
        del data[at:]
    else:
        data[at] ^= 1 << bit
    folder = tmp_path_factory.mktemp("model")
    try:
        check_files(write(folder, **{name: bytes(data)}))
    except Refused as error:
        assert name in error.failure.reason and error.failure.hint
    else:
        assert not cut  # what is cut short never passes


@given(st.binary(max_size=64))
def test_so_is_rubbish(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("model")
    with pytest.raises(Refused, match=r"model\.safetensors"):
        check_files(write(folder, **{"model.safetensors": data}))


def test_a_ggufs_folder_needs_no_more(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").touch()
    check_files(str(tmp_path), gguf=True)
