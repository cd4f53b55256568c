"""Compare quantchat's perplexity and KL divergence with llama.cpp's, on the same GGUF files.

`python benchmarks/llama_perplexity.py --bin FOLDER` needs llama.cpp's `llama-perplexity` and
`llama-quantize` in FOLDER (built with CMake from its sources, or from those in the source
distribution of llama-cpp-python; `docs/explanation/scoring.md` has the commands). It unpacks the
demo's Q4_1 GGUF file to float32: this is the reference ("base"). It quantizes the reference to
Q3_K_S and unpacks the result to float32 again, so that both programs multiply the same float32
weights. Both score the text that ships with quantchat, in the same windows. llama.cpp also scores
the original Q4_1 file: then it rounds the activations to 8 bits, which transformers does not do.

It writes `benchmarks/results/llama_perplexity.json`; `--table` prints the table of
`docs/explanation/scoring.md`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from driving import circumstances

from quantchat import corpus
from quantchat.checkpoints.builder import CheckpointBuilder
from quantchat.engines.transformers import Transformers
from quantchat.engines.variant import DEMO_MODEL
from quantchat.features.score.run import score
from quantchat.measuring.score_plan import DEFAULT_TOKENS, WINDOW, ScorePlan
from quantchat.profile.model import Profile

RESULTS = Path(__file__).parent / "results" / "llama_perplexity.json"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
LOW = "Q3_K_S"
"""The quantization that is compared with the reference."""

_PRINTED = {
    "perplexity": r"Mean PPL\(Q\)\s*:\s*(\S+) ±\s*(\S+)",
    "perplexity of the base": r"Mean PPL\(base\)\s*:\s*(\S+) ±\s*(\S+)",
    "ln of the ratio": r"Mean ln\(PPL\(Q\)/PPL\(base\)\)\s*:\s*(\S+) ±\s*(\S+)",
    "ΔPPL": r"Mean PPL\(Q\)-PPL\(base\)\s*:\s*(\S+) ±\s*(\S+)",
    "KLD": r"Mean\s+KLD:\s*(\S+) ±\s*(\S+)",
    "KLD 50 %": r"Median\s+KLD:\s*(\S+)",
    "KLD 90 %": r"90\.0%\s+KLD:\s*(\S+)",
    "KLD 95 %": r"95\.0%\s+KLD:\s*(\S+)",
    "KLD 99 %": r"99\.0%\s+KLD:\s*(\S+)",
    "KLD 99.9 %": r"99\.9%\s+KLD:\s*(\S+)",
    "KLD, maximum": r"Maximum KLD:\s*(\S+)",
    "mean Δp, %": r"Mean\s+Δp:\s*(\S+) ±\s*(\S+)",
    "RMS Δp, %": r"RMS Δp\s*:\s*(\S+) ±\s*(\S+)",
    "top-1 agreement, %": r"Same top p:\s*(\S+) ±\s*(\S+)",
}
"""Patterns of llama.cpp's output, by figure. They match a value and mostly its standard error."""

_FINAL = re.compile(r"Final estimate: PPL = (\S+) \+/- (\S+)")


def theirs(folder: Path, gguf: Path, low: Path, original: Path, chunks: int) -> dict[str, Any]:
    """Return llama.cpp's figures of `low`, and the perplexity of the original Q4_1 file.

    `gguf` is the reference; `chunks` is the number of windows.
    """
    kept = gguf.with_suffix(".logits")
    size = ["-c", str(WINDOW), "-b", str(WINDOW), "--chunks", str(chunks)]
    common = ["-f", str(corpus.dataset(corpus.OWN).path), *size, "--no-warmup"]
    program = str(folder / "llama-perplexity")
    run([program, "-m", str(gguf), *common, "--kl-divergence-base", str(kept)])
    said = run(
        [program, "-m", str(low), *common, "--kl-divergence-base", str(kept), "--kl-divergence"]
    )
    figures = {}
    for name, pattern in _PRINTED.items():
        found = re.search(pattern, said)
        if found is None:
            raise SystemExit(f"llama-perplexity did not print {name}:\n{said[-3000:]}")
        figures[name] = [float(group.rstrip("%")) for group in found.groups()]
    final = _FINAL.search(run([program, "-m", str(original), *common]))
    if final is None:
        raise SystemExit("llama-perplexity printed no final estimate")
    return {"figures": figures, "as_q4_1": [float(group) for group in final.groups()]}


def run(command: list[str]) -> str:
    """Return the output of a llama.cpp program. Ends the benchmark if the program fails."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise SystemExit(f"{command[0]} failed:\n{done.stderr[-3000:]}")
    return done.stdout + done.stderr


async def ours(folder: Path, base: str, low: str, chunks: int) -> dict[str, Any]:
    """Return quantchat's figures of `low` compared with the reference `base`.

    As in llama.cpp, the standard errors treat the tokens as independent.
    """
    variants = [
        {
            "label": name, "engine": "transformers", "model": str(folder), "gguf_file": name,
            "dtype": "float32", "device": "cpu",
        }
        for name in (base, low)
    ]  # fmt: skip
    profile = Profile.model_validate({"name": "the same files", "variants": variants})
    text = corpus.dataset(corpus.OWN)
    plan = ScorePlan(text, profile.variants[0], chunks * WINDOW, floor="none")
    _, found = await score(profile, plan, provider=CheckpointBuilder())
    reference, variant = found.models
    for model in found.models:
        if model.failure is not None:
            raise SystemExit(f"{model.label}: {model.failure.reason}")
    seen = variant.divergence
    assert seen is not None and variant.perplexity is not None and reference.perplexity is not None
    quantities = {
        "perplexity": (variant.perplexity, 1),
        "perplexity of the base": (reference.perplexity, 1),
        "ln of the ratio": (seen.log_ratio, 1),
        "ΔPPL": (seen.perplexity_difference, 1),
        "KLD": (seen.kld_mean, 1),
        **{f"KLD {one.percent:g} %": (one.figure, 1) for one in seen.kld_percentiles},
        "mean Δp, %": (seen.delta_p_mean, 100),
        "RMS Δp, %": (seen.delta_p_rms, 100),
        "top-1 agreement, %": (seen.top1_agreement, 100),
    }
    figures = {
        name: [q.value * times, None if q.error is None else q.error * times]
        for name, (q, times) in quantities.items()
    }
    return {
        "figures": {**figures, "KLD, maximum": [seen.kld_max]},
        "setting": found.setting.model_dump(),
    }


async def measure(folder: Path, chunks: int) -> dict[str, Any]:
    """Build the files, and score them with both programs."""
    spec = Transformers(label="GGUF", engine="transformers", model=DEMO_MODEL, gguf_file=GGUF)
    wheel = Path((await CheckpointBuilder().prepare(spec, lambda progress: None)).model)
    result = circumstances(f"llama_perplexity.py --bin FOLDER --chunks {chunks}")
    with tempfile.TemporaryDirectory() as made:
        base, low, plain = (Path(made) / f"{name}.gguf" for name in ("base", "low", "low-f32"))
        quantize = [str(folder / "llama-quantize"), "--allow-requantize"]
        run([*quantize, str(wheel / GGUF), str(base), "F32"])
        run([*quantize, str(base), str(low), LOW])
        run([*quantize, str(low), str(plain), "F32"])
        result["llama_cpp_version"] = version(folder)
        result["llama_cpp"] = theirs(folder, base, plain, wheel / GGUF, chunks)
        result["quantchat"] = await ours(Path(made), base.name, plain.name, chunks)
    return result


def version(folder: Path) -> str:
    """Return the version that llama.cpp prints."""
    said = run([str(folder / "llama-perplexity"), "--version"])
    found = re.search(r"version: .*", said)
    return found[0] if found else "not reported"


def table(result: dict[str, Any]) -> str:
    """Return the figures of both programs as a Markdown table, with their relative difference."""
    theirs_, ours_ = result["llama_cpp"]["figures"], result["quantchat"]["figures"]
    lines = ["| figure | llama.cpp | quantchat | difference |", "| --- | --: | --: | --: |"]
    for name, one in theirs_.items():
        apart = abs(ours_[name][0] - one[0]) / abs(one[0])
        lines.append(f"| {name} | {_told(one)} | {_told(ours_[name])} | {apart:.3%} |")
    as_it_comes = _told(result["llama_cpp"]["as_q4_1"])
    scored = result["quantchat"]["setting"]["positions"]
    lines += [
        "",
        f"{scored} tokens were scored. If llama.cpp reads the original Q4_1 file and rounds "
        f"activations to 8 bits, its perplexity is {as_it_comes}.",
    ]
    return "\n".join(lines)


def _told(one: list[float]) -> str:
    return " ± ".join(f"{value:.5g}" for value in one)


def main() -> None:
    """Measure and write the result, or print the table of the saved result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bin", type=Path, help="folder with llama.cpp's programs")
    parser.add_argument(
        "--chunks", type=int, default=DEFAULT_TOKENS // WINDOW, help="number of windows"
    )
    parser.add_argument("--table", action="store_true", help="print the saved result")
    given = parser.parse_args()
    if not given.table:
        if given.bin is None:
            parser.error("--bin FOLDER is needed to measure")
        result = asyncio.run(measure(given.bin, given.chunks))
        RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(json.loads(RESULTS.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
