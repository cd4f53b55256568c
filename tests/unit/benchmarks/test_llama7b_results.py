"""The saved results of several runs, and their table."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
SLOW, FAST = {"bandwidth_bytes_s": 10**9}, {"bandwidth_bytes_s": 2 * 10**9}
LOADED = {"kernel": "Kernel", "decode": "graph"}
REFUSED = {"not_run": "out of memory"}


@pytest.fixture(autouse=True)
def _found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def kept(folder: Path, device: str = "Some GPU", run: dict[str, Any] = SLOW) -> Any:
    found = importlib.import_module("llama7b.results").SavedResults(folder, "small", device)
    found.begin({"date": "2026-01-02T03:04", "command": "llama7b", "peak_bytes_s": None, **run})
    return found


def figures(*tok_s: float) -> dict[str, Any]:
    return {
        "tok_s": list(tok_s),
        "ratio": [2.0] * len(tok_s),
        "ttft_ms": [30.0] * len(tok_s),
        "bytes_per_token": 10**7,
        "ledger": {"weights": 10**8},
    }


def table(result: dict[str, Any]) -> str:
    text: str = importlib.import_module("llama7b.table").table(result)
    return text


def test_a_later_run_adds_to_what_is_kept(tmp_path: Path) -> None:
    first = kept(tmp_path)
    first.add("NF4", "eager", LOADED, 512, figures(50))
    first.add("NF4", "graph", LOADED, 512, figures(60))
    second = kept(tmp_path, run=FAST)
    second.add("NF4", "graph", LOADED, 128, figures(80))
    second.add("NF4", "graph", LOADED, 512, figures(70))
    modes = json.loads(second.file.read_text())["variants"]["NF4"]["modes"]
    assert modes["eager"]["contexts"]["512"] == {**figures(50), "run": 0}
    assert modes["graph"]["contexts"] == {
        "128": {**figures(80), "run": 1},
        "512": {**figures(70), "run": 1},
    }
    assert list(modes["graph"]["contexts"]) == ["128", "512"]


def test_what_could_not_be_run_replaces_no_figure(tmp_path: Path) -> None:
    kept(tmp_path).add("NF4", "graph", LOADED, 128, figures(80))
    before = json.loads(kept(tmp_path).file.read_text())["variants"]
    later = kept(tmp_path)
    later.refuse("NF4", "the GPU is taken")
    later.refuse_mode("NF4", "graph", "Kernel", "no capture")
    later.add("NF4", "graph", LOADED, 128, REFUSED)
    assert later.variants == before
    later.add("NF4", "graph", LOADED, 8192, REFUSED)
    assert later.left("NF4", "graph", [128, 512, 8192]) == [512, 8192]
    later.add("NF4", "graph", LOADED, 8192, figures(9))
    assert later.left("NF4", "graph", [128, 512, 8192]) == [512]
    later.add_pair({"in turn": {}})
    later.add_pair(REFUSED)
    assert "in turn" in later.result["pair"]


def test_a_variant_that_is_had_at_last_loses_its_reason(tmp_path: Path) -> None:
    one = kept(tmp_path)
    one.refuse("NF4", "the GPU is taken")
    one.refuse_mode("NF4", "graph", "Kernel", "no capture")
    assert "not_run" not in one.variants["NF4"]
    one.add("NF4", "graph", LOADED, 128, figures(80))
    assert "not_run" not in one.variants["NF4"]["modes"]["graph"]


def test_each_device_has_a_file_of_its_own(tmp_path: Path) -> None:
    kept(tmp_path, "NVIDIA H100 80GB HBM3").refuse("NF4", "none")
    other = kept(tmp_path, "NVIDIA H200")
    assert not other.variants and other.file.name == "llama7b-small-nvidia-h200.json"
    with pytest.raises(SystemExit, match="was measured on 'NVIDIA H200', this is 'NVIDIA-H200'"):
        other.refuse("NF4", "none")
        kept(tmp_path, "NVIDIA-H200")


@pytest.mark.parametrize("text", ["{", "[]", '{"device": "Some GPU"}'])
def test_a_file_that_is_no_result_is_left_alone(tmp_path: Path, text: str) -> None:
    file = tmp_path / "llama7b-small-some-gpu.json"
    file.write_text(text)
    with pytest.raises(SystemExit, match=r"llama7b-small-some-gpu\.json"):
        kept(tmp_path)
    assert file.read_text() == text


def test_a_folder_that_takes_nothing_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="cannot be written"):
        kept(tmp_path / "file" / "results")
    assert not kept(tmp_path / "new" / "results").variants


def test_the_table_takes_each_figure_against_its_own_run(tmp_path: Path) -> None:
    kept(tmp_path).add("NF4", "eager", LOADED, 128, figures(50, 20, 60))
    one = kept(tmp_path, run={**FAST, "peak_bytes_s": 3e9})
    one.add("NF4", "graph", LOADED, 128, figures(50))
    one.add("NF4", "graph", LOADED, 8192, REFUSED)
    one.add("FP4", "graph", LOADED, 8192, REFUSED)
    one.refuse("int8", "no | kernel")
    lines = table(one.result).splitlines()
    assert "| NF4 | Kernel | graph | 128: 50.0 | 2.00 | 50% | 128: 30 | 0.10 |" in lines
    assert "| NF4 | Kernel | graph | 128: 50.0 | 2.00 | 25% | 128: 30 | 0.10 |" in lines
    assert "- NF4, Kernel, graph at 8192: out of memory" in lines
    assert "- FP4, Kernel, graph at 8192: out of memory" in lines
    assert "- int8: no / kernel" in lines
    assert [line for line in lines if "memory read at" in line] == [
        "- 2026-01-02, `llama7b`, memory read at 1 GB/s",
        "- 2026-01-02, `llama7b`, memory read at 2 GB/s of 3",
    ]


def test_the_fastest_is_named_with_the_mode_it_was_fastest_in(tmp_path: Path) -> None:
    pair: Any = importlib.import_module("llama7b.pair")
    one = kept(tmp_path)
    one.add("NF4", "eager", LOADED, 128, figures(50))
    one.add("NF4", "graph", LOADED, 128, REFUSED)
    one.add("NF4, double quant", "graph", LOADED, 128, figures(70))
    one.add("NF4, double quant", "eager", LOADED, 8192, figures(90))
    one.refuse_mode("NF4", "compile", "Kernel", "no compiler")
    one.refuse("GPTQ 4-bit, Marlin", "no CUDA")
    assert pair.fastest(one.variants, "NF4", 128) == ("NF4, double quant", "graph")
    assert pair.fastest(one.variants, "NF4", 8192) == ("NF4, double quant", "eager")
    assert pair.fastest(one.variants, "GPTQ 4-bit", 128) is None


def test_progress_tells_how_long_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    now = [100.0]
    progress = importlib.import_module("llama7b.measure").Progress(5, lambda: now[0])
    progress.begin("one")
    now[0] += 60
    progress.begin("two")
    now[0] += 30
    progress.skip(2)
    progress.begin("three")
    assert capsys.readouterr().out.splitlines() == [
        "[1 of 5, 0:00:00] one",
        "[2 of 5, 0:01:00, about 0:04:00 left] two",
        "[3 of 3, 0:01:30, about 0:00:45 left] three",
    ]
