"""The index of transformers' models is read from a file, and made again when a source changes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from quantchat.worker import transformers_index

PROGRAM = """
import json, sys
from quantchat.worker.transformers_index import reuse_index
if sys.argv[1] == "reuse":
    reuse_index()
import transformers
from transformers.utils import import_utils
models = str(transformers.__path__[0]) + "/models"
found = import_utils.define_import_structure(models + "/__init__.py")
told = sorted(
    (sorted(needs), {name: sorted(names) for name, names in modules.items()})
    for needs, modules in found.items()
)
print(json.dumps([told, sorted(dir(transformers.models))]))
"""


def index_of(how: str, folder: Path) -> Any:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, how],
        env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(run.stdout)


def test_it_is_what_transformers_finds_itself(tmp_path: Path) -> None:
    plain = index_of("alone", tmp_path)
    assert not list(tmp_path.iterdir())
    assert index_of("reuse", tmp_path) == plain
    (file,) = tmp_path.iterdir()
    first = file.stat().st_mtime_ns
    assert index_of("reuse", tmp_path) == plain
    assert file.stat().st_mtime_ns == first, "it was not written again"


class Scanned:
    """Stands in for transformers' function: counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, folder: Any) -> Any:
        self.calls += 1
        return {"llama": {frozenset({"torch"}): {"modeling_llama": {"LlamaModel"}}}}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    models = tmp_path / "models"
    (models / "llama").mkdir(parents=True)
    (models / "__init__.py").touch()
    (models / "llama" / "modeling_llama.py").write_text("class LlamaModel: ...")
    (tmp_path / "kept").mkdir()
    return models


def test_it_is_scanned_again_only_if_a_source_changes(models: Path, tmp_path: Path) -> None:
    scan = Scanned()
    once = transformers_index._reusing(scan, tmp_path / "kept")
    found = once(models)
    assert once(models / "__init__.py") == found and scan.calls == 1
    again = transformers_index._reusing(scan, tmp_path / "kept")
    assert again(str(models)) == found and scan.calls == 1
    (models / "llama" / "modeling_llama.py").write_text("class LlamaModel: ...  # changed")
    assert transformers_index._reusing(scan, tmp_path / "kept")(models) == found
    assert scan.calls == 2


@pytest.mark.parametrize("content", [b"", b"\xff\x00 no index", b"\xe3"])
def test_a_damaged_file_is_replaced(content: bytes, models: Path, tmp_path: Path) -> None:
    scan = Scanned()
    found = transformers_index._reusing(scan, tmp_path / "kept")(models)
    (file,) = (tmp_path / "kept").iterdir()
    file.write_bytes(content)
    assert transformers_index._reusing(scan, tmp_path / "kept")(models) == found
    assert transformers_index._reusing(scan, tmp_path / "kept")(models) == found
    assert scan.calls == 2


def test_without_a_folder_it_is_scanned_each_time(models: Path, tmp_path: Path) -> None:
    scan = Scanned()
    for _ in range(2):
        assert transformers_index._reusing(scan, tmp_path / "missing")(models)
    assert scan.calls == 2


def test_a_module_without_the_function_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "transformers" / "utils"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    (package / "import_utils.py").write_text("ANSWER = 42")
    for name in [one for one in sys.modules if one.partition(".")[0] == "transformers"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    finders = list(sys.meta_path)
    transformers_index.reuse_index()
    assert len(sys.meta_path) == len(finders) + 1
    try:
        import transformers.utils.import_utils as found

        assert isinstance(found, ModuleType) and found.ANSWER == 42
        assert sys.meta_path == finders
    finally:
        for name in [one for one in sys.modules if one.partition(".")[0] == "transformers"]:
            del sys.modules[name]
