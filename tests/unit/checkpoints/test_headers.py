"""Reading model headers: folders, shards, the Hugging Face cache, a hub, invalid files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import quantchat
from fakes.fake_hub import COMMIT, serving
from fakes.model_folder import LLAMA_2_7B, header, llama_tensors, write_model
from quantchat.checkpoints.headers import read, read_folder
from quantchat.checkpoints.sources import ModelName
from quantchat.errors import UserError
from quantchat.estimate.model_files import TensorInfo

SMALL = {**LLAMA_2_7B, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
TENSORS = llama_tensors(SMALL)


@pytest.mark.parametrize("shards", [1, 3])
def test_a_folder_whole_or_in_shards(shards: int, tmp_path: Path) -> None:
    files = read_folder(write_model(tmp_path, SMALL, TENSORS, shards))
    assert files.config == SMALL
    assert files.tensors == {name: TensorInfo(*one) for name, one in TENSORS.items()}
    assert files.dtype == "float16"
    elements = sum(tensor.elements for tensor in files.tensors.values())
    assert files.bytes == 2 * elements


def test_only_what_transformers_loads_is_counted(tmp_path: Path) -> None:
    write_model(tmp_path, SMALL, TENSORS, shards=2)
    (tmp_path / "consolidated.safetensors").write_bytes(header(TENSORS | {"more": ("F32", (9,))}))
    assert "more" not in read_folder(tmp_path).tensors


def test_an_index_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "secret.safetensors").write_bytes(header({"secret": ("F32", (1,))}))
    folder = write_model(tmp_path / "model", SMALL, TENSORS, shards=2)
    body = {"weight_map": {"secret": "../secret.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(body))
    with pytest.raises(UserError, match="cannot be read"):
        read_folder(folder)


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("config.json", None, "cannot be read"),
        ("config.json", b"{", "is not JSON"),
        ("config.json", b"[]", "is not a JSON object"),
        ("model.safetensors", None, "has no safetensors files"),
        ("model.safetensors", b"GGUF", "is not a safetensors file"),
        ("model.safetensors", b"\xff" * 8, "is not a safetensors file"),
        ("model.safetensors", (9).to_bytes(8, "little") + b"{", "not JSON"),
        ("model.safetensors", (2).to_bytes(8, "little") + b"[]", "not a JSON object"),
        ("model.safetensors", (9).to_bytes(8, "little") + b'{"a": 1} ', "without dtype"),
        ("model.safetensors.index.json", b'{"weight_map": 3}', "names no files"),
    ],
)
def test_a_mistake_is_one_line(
    name: str, content: bytes | None, complaint: str, tmp_path: Path
) -> None:
    write_model(tmp_path, SMALL, TENSORS)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=complaint) as raised:
        read_folder(tmp_path)
    assert "\n" not in str(raised.value)


_json: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["dtype", "shape", "a"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.binary(max_size=60) | _json.map(lambda body: json.dumps(body).encode()))
def test_no_header_does_more_than_complain(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder), SMALL, TENSORS)
        length = len(content).to_bytes(8, "little")
        (Path(folder) / "model.safetensors").write_bytes(length + content)
        try:
            files = read_folder(Path(folder))
        except UserError:
            return
        assert files.bytes >= 0


# ------------------------------------------------------------ names of a hub

READ = """
import json, sys
from quantchat.errors import UserError
from quantchat.checkpoints.headers import read
from quantchat.checkpoints.sources import existing_model
try:
    files = read(existing_model(sys.argv[1]), fetch=sys.argv[2] == "fetch")
    print(json.dumps([len(files.tensors), files.bytes, files.config["hidden_size"]]))
except UserError as error:
    print(error)
"""


def read_in_a_process(model: str, how: str, home: Path, endpoint: str) -> str:
    """The library reads its settings at import, hence a process of its own."""
    # None of the settings that another test, or a library in its process, may have left there.
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
        "PYTHONPATH": str(Path(quantchat.__file__).parents[1]),
        "HF_HOME": str(home),
        "HF_ENDPOINT": endpoint,
    }
    run = subprocess.run(
        [sys.executable, "-c", READ, model, how],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout.strip()


@pytest.mark.parametrize("shards", [1, 2])
def test_a_hub_is_asked_for_config_and_headers_alone(shards: int, tmp_path: Path) -> None:
    hub, home = tmp_path / "hub", tmp_path / "home"
    write_model(hub / "org" / "small", SMALL, TENSORS, shards)
    expected = [len(TENSORS), read_folder(hub / "org" / "small").bytes, 64]
    with serving(hub) as (address, asked):
        refused = read_in_a_process("org/small", "here", home, address)
        assert "not on this machine yet" in refused
        assert not asked
        said = read_in_a_process("org/small@v1", "fetch", home, address)
        assert json.loads(said) == expected
        weights = [line for line in asked if ".safetensors " in line and line.startswith("GET")]
        assert weights
        assert all("bytes=" in line for line in weights), "no weight file is fetched whole"
        said = read_in_a_process("org/none", "fetch", home, address)
        assert "org/none: the model's files are not on this machine, and the hub" in said
        assert "\n" not in said


def test_what_the_cache_has_is_not_asked_for(tmp_path: Path) -> None:
    repository = tmp_path / "home" / "hub" / "models--org--small"
    write_model(repository / "snapshots" / COMMIT, SMALL, TENSORS)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    with serving(tmp_path) as (address, asked):
        said = read_in_a_process("org/small", "fetch", tmp_path / "home", address)
        assert json.loads(said)[0] == len(TENSORS)
        assert not asked
        (repository / "snapshots" / COMMIT / "model.safetensors").unlink()
        said = read_in_a_process("org/small", "here", tmp_path / "home", address)
        assert "not on this machine yet" in said


def test_what_no_hub_can_have_is_not_here() -> None:
    with pytest.raises(UserError, match="not on this machine yet"):
        read(ModelName("no:such:name"), fetch=False)
