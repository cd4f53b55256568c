"""A worker skips imports that no answer needs, but not those that may be needed."""

from __future__ import annotations

import gc
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import quantchat
from quantchat.wire.jobs import (
    AnyJob,
    DequantizeJob,
    GptqSettings,
    QuantizeGptqJob,
    ScoreJob,
    Workspace,
)
from quantchat.wire.messages import LoadModel
from quantchat.worker.import_pruning import unhide, without_collection
from quantchat.worker.jobs import dispatch

PROGRAM = """
import importlib.util, json, sys
from quantchat.worker.loaders import hide_unused
from quantchat.wire.messages import LoadModel
hide_unused(LoadModel(sys.argv[1], "", **{"options": {}, **json.loads(sys.argv[2])}))
print([name for name in ("hqq", "scipy", "torchao") if importlib.util.find_spec(name) is None])
"""


@pytest.mark.parametrize(
    ("engine", "more", "hidden"),
    [
        ("gptq", {}, ["hqq", "scipy", "torchao"]),
        ("bitsandbytes", {}, ["hqq", "scipy", "torchao"]),
        ("transformers", {}, ["hqq", "scipy", "torchao"]),
        ("transformers", {"trust_remote_code": True}, []),
        ("gptq", {"options": {"kv_cache": "int4"}}, ["scipy", "torchao"]),
        ("gptq", {"options": {"kv_cache": "fp8"}}, ["hqq", "scipy", "torchao"]),
        ("hqq", {}, ["scipy", "torchao"]),
        ("torchao", {}, ["hqq", "scipy"]),
        ("auto-gptq", {}, []),
    ],
)
def test_what_is_hidden_from_which_model(
    engine: str, more: dict[str, Any], hidden: list[str]
) -> None:
    for name in ("hqq", "scipy", "torchao"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, engine, json.dumps(more)],
        env={"PYTHONPATH": str(Path(quantchat.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == str(hidden)


PROGRAM_THAT_COMPILES = """
import json, sys
import torch
from quantchat.worker.import_pruning import without_compiler
compiled = []

def backend(graph, _):
    compiled.append("once")
    return graph.forward

def twice(x):
    "Twice of it."
    return x + x

before = torch.compile
with without_compiler():
    twice = torch.compile(backend=backend, dynamic=False)(twice)
    once = torch.compile(lambda x: x, backend=backend)
    plain = torch.compiler.disable(reason="none")(torch._dynamo.allow_in_graph(lambda x: x))
    from torch._dynamo._trace_wrapped_higher_order_op import TransformGetItemToIndex
    real = TransformGetItemToIndex()
    module = torch.compile(torch.nn.Identity(), backend=backend)
    kept = torch._dynamo.is_compiling  # what has no stand-in is the compiler's own
assert type(real) is not TransformGetItemToIndex
assert torch.compile is before
assert compiled == []
assert twice.__doc__ == "Twice of it."
assert [float(twice(torch.tensor(3.0))) for _ in range(2)] == [6.0, 6.0]
assert (float(once(torch.tensor(3.0))), plain(4)) == (3.0, 4)
assert isinstance(module, torch.nn.Module)
assert compiled == ["once"]  # nothing is computed by the other one
assert kept is torch._dynamo.is_compiling
"""


def test_a_decorator_alone_needs_no_compiler() -> None:
    pytest.importorskip("torch")
    subprocess.run(
        [sys.executable, "-c", PROGRAM_THAT_COMPILES],
        env={"PYTHONPATH": str(Path(quantchat.__file__).parents[1])},
        check=True,
    )


PROGRAM_THAT_IMPORTS = """
import json, sys
from quantchat.worker.import_pruning import without_compiler
from quantchat.worker.loaders import hide_unused
HEAVY = ("torch._dynamo", "torch.distributed.tensor", "sympy")
from quantchat.wire.messages import LoadModel
hide_unused(LoadModel(sys.argv[1], "", {}))
with without_compiler():
    exec(sys.argv[2])
    import transformers.generation.utils, transformers.masking_utils, transformers.modeling_utils
    stand_ins = [name for name in HEAVY[:1] if not hasattr(sys.modules[name], "__file__")]
import torch
print(json.dumps([
    stand_ins,
    [name for name in HEAVY if name in sys.modules],
    torch.distributed.is_available(),
]))
"""


@pytest.mark.parametrize(
    ("engine", "imports"),
    [
        ("bitsandbytes", "import bitsandbytes"),
        ("gptq", "from gptqmodel import BACKEND, GPTQModel"),
    ],
)
def test_a_worker_imports_no_compiler(engine: str, imports: str) -> None:
    pytest.importorskip(imports.split()[1])
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM_THAT_IMPORTS, engine, imports],
        env={"PYTHONPATH": str(Path(quantchat.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(run.stdout.splitlines()[-1]) == [["torch._dynamo"], [], True]


def test_imports_run_without_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen: list[str] = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append("once"))
    assert gc.isenabled()
    with without_collection():
        assert not gc.isenabled()
        with without_collection():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
    assert frozen == ["once"]


def test_what_a_checkpoints_library_imports_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    modules: dict[str, Any] = sys.modules
    for name in ("pandas", "sklearn"):
        monkeypatch.setitem(modules, name, None)
    unhide("gptq")
    assert modules["pandas"] is None
    unhide("auto-round")
    assert "pandas" not in modules and modules["sklearn"] is None


HERE = Workspace("output", "scratch")
SETTINGS = GptqSettings(4, 64, False, False, True, 0.01, True)
TRUSTED = LoadModel("gptq", "", {}, trust_remote_code=True)


@pytest.mark.parametrize(
    ("job", "hidden"),
    [
        (DequantizeJob("folder", "file", HERE), ["hqq", "pandas"]),
        (ScoreJob(LoadModel("hqq", "", {}), "text", 8, 8, HERE), ["pandas"]),
        (ScoreJob(TRUSTED, "text", 8, 8, HERE), []),
        # GPTQModel quantizes with `datasets`, which imports pandas.
        (
            QuantizeGptqJob(LoadModel("gptq", "", {}), SETTINGS, "text", HERE),
            ["hqq"],
        ),
        (QuantizeGptqJob(TRUSTED, SETTINGS, "text", HERE), []),
    ],
    ids=str,
)
def test_what_is_hidden_from_which_job(
    monkeypatch: pytest.MonkeyPatch, job: AnyJob, hidden: list[str]
) -> None:
    for name in ("hqq", "pandas"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    before = dict(sys.modules)
    try:
        dispatch.hide_unused(job)
        found = [name for name in ("hqq", "pandas") if name in sys.modules]
    finally:
        for name in set(sys.modules) - set(before):
            del sys.modules[name]
    assert found == hidden
