"""The tables in the documentation match the saved results."""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import quantchat

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("benchmark", "page"),
    [
        ("decode.py", "docs/explanation/decoding.md"),
        ("quality.py", "docs/explanation/scoring.md"),
        ("quantize_memory.py", "docs/how-to/quantizing.md"),
        ("tasks.py", "docs/how-to/tasks.md"),
        ("servers.py", "docs/how-to/servers.md"),
        ("load_against_aiperf.py", "docs/how-to/load.md"),
        ("llama_perplexity.py", "docs/explanation/scoring.md"),
        ("screen.py", "docs/explanation/screen-benchmarks.md"),
        ("peer.py", "docs/explanation/screen-benchmarks.md"),
        ("soak.py", "docs/explanation/screen-benchmarks.md"),
        ("startup.py", "docs/explanation/screen-benchmarks.md"),
        ("watching.py", "docs/explanation/screen-benchmarks.md"),
        ("heavy_text.py", "docs/explanation/screen-benchmarks.md"),
        ("install_size.py", "docs/reference/dependencies.md"),
        ("package.py", "docs/reference/dependencies.md"),
        ("methods.py", "docs/reference/methods.md"),
        ("load_servers.py", "docs/how-to/load.md"),
        ("loading.py", "docs/explanation/decoding.md"),
    ],
)
def test_a_page_shows_the_saved_result(benchmark: str, page: str) -> None:
    printed = table_of(benchmark)
    assert printed.count("\n") > 3
    assert printed in (ROOT / page).read_text(encoding="utf-8")


def table_of(benchmark: str) -> str:
    return subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / benchmark), "--table"],
        env={"PYTHONPATH": str(Path(quantchat.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@pytest.mark.parametrize("benchmark", ["intervals.py", "verdicts.py"])
def test_the_page_on_statistics_has_both_tables_of(benchmark: str) -> None:
    tables = table_of(benchmark).strip().split("\n\n")
    page = (ROOT / "docs" / "explanation" / "statistics.md").read_text(encoding="utf-8")
    assert len(tables) == 2
    assert all(table in page for table in tables)


@pytest.mark.parametrize("script", ["gpu/probe.py", "llama7b"])
def test_the_page_on_decoding_shows_what_gpus_gave(script: str) -> None:
    """The table of each kept result of a GPU stands there; until there is one, that none is."""
    kept = {"gpu/probe.py": "gpu-probe-*.json", "llama7b": "llama7b-*.json"}[script]
    page = (ROOT / "docs" / "explanation" / "decoding.md").read_text(encoding="utf-8")
    if not any((ROOT / "benchmarks" / "results").glob(kept)):
        assert "No GPU has been measured yet" in page
        return
    printed = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / script), "--table"],
        env={"PYTHONPATH": str(Path(quantchat.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert printed.strip() in page


def test_the_page_on_decoding_says_how_soon_a_stop_is_answered() -> None:
    result = json.loads((ROOT / "benchmarks" / "results" / "stopping.json").read_text())
    slowest = max(stop["ms"] for stops in result["variants"].values() for stop in stops)
    expected = f"answered within {math.ceil(slowest)} ms in a prompt of 8000 tokens"
    page = " ".join((ROOT / "docs/explanation/decoding.md").read_text(encoding="utf-8").split())
    assert "--tokens 8000" in result["command"] and expected in page


def test_the_readme_says_how_much_is_downloaded() -> None:
    mb = json.loads((ROOT / "benchmarks" / "results" / "install_size.json").read_text())["mb"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for_cuda = mb["torch"] + mb["cuda"] + mb["other"]
    for_cpus = mb["cpu_torch"] + mb["other"]
    minutes = for_cuda * 8 / 100 / 60
    assert f"{for_cuda / 1000:.1f} GB, {minutes:.0f} minutes at 100 Mbit/s" in readme
    assert f"build for CPUs: {for_cpus / 1000:.1f} GB" in readme


def test_the_page_on_decoding_says_what_imports_cost() -> None:
    result = json.loads((ROOT / "benchmarks" / "results" / "imports.json").read_text())
    page = " ".join(
        (ROOT / "docs" / "explanation" / "decoding.md").read_text(encoding="utf-8").split()
    )
    for engine in result["engines"]:
        figures = result["engines"][engine]
        plain, hidden = figures["as they are"], figures["hidden"]
        assert (
            f"{hidden['cpu_s']} s and {hidden['resident_mib']} MiB instead of"
            f" {plain['cpu_s']} s and {plain['resident_mib']} MiB"
        ) in page


def test_the_page_on_cpu_decoding_has_the_saved_figures() -> None:
    saved = json.loads((ROOT / "benchmarks" / "results" / "decode.json").read_text())
    page = (ROOT / "docs" / "explanation" / "cpu-decoding.md").read_text(encoding="utf-8")
    ratios = {
        mode: " / ".join(
            f"{statistics.median(modes[mode]['ratio']):.2f}" for modes in saved["variants"].values()
        )
        for mode in ("eager", "compile")
    }
    sentence = (
        f"Decode throughput relative to `generate` ({' / '.join(saved['variants'])}): fused Llama "
        f'steps {ratios["eager"]}, steps compiled with torch.compile (`decode = "compile"`) '
        f"{ratios['compile']}."
    )
    assert {modes["eager"]["resolved"] for modes in saved["variants"].values()} == {
        "eager, fused Llama steps in C"
    }
    assert sentence in " ".join(page.split())
    if "cpu_steps" not in saved:
        assert "No result has been saved yet" in " ".join(page.split())
        return
    printed = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "cpu_steps.py"), "--table"],
        env={"PYTHONPATH": str(Path(quantchat.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert printed.strip() in page
