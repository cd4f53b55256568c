"""`quantchat score` on the real model: its perplexity is transformers' own cross-entropy."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from quantchat import corpus
from quantchat.measuring.score_plan import DEFAULT_TOKENS
from quantchat.snapshot import store

pytestmark = pytest.mark.model

TOKENS, WINDOW = 512, 256

PROFILE = """
name = "NF4 against its base"

[[variants]]
label = "NF4"
engine = "bitsandbytes"
model = "demo:smollm2-135m-instruct"

[[variants]]
label = "base"
engine = "transformers"
model = "demo:smollm2-135m-instruct"
dtype = "float32"  # in bfloat16 another block of rows rounds otherwise, in the fourth digit
"""


def cross_entropy(folder: Path, ids: list[int]) -> float:
    """Mean loss of transformers over the second half of each window, its labels shifted by it."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    losses = []
    for start in range(0, TOKENS, WINDOW):
        window = torch.tensor([ids[start : start + WINDOW]])
        labels = window.clone()
        labels[0, : WINDOW // 2 + 1] = -100
        with torch.inference_mode():
            losses.append(float(model(input_ids=window, labels=labels).loss))
    return sum(losses) / len(losses)


def test_a_variant_and_its_reference(demo_base: Path, demo_cache: Path, tmp_path: Path) -> None:
    file = tmp_path / "pair.toml"
    file.write_text(PROFILE, encoding="utf-8")
    settings = ["--tokens", str(TOKENS), "--window", str(WINDOW), "--floor", "none"]
    run = subprocess.run(
        [sys.executable, "-m", "quantchat", "score", str(file), *settings,
         "--save", str(tmp_path / "saved"), "--json"],
        env={**os.environ, "QUANTCHAT_LOGS": str(tmp_path / "logs")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    (saved,) = (tmp_path / "saved").iterdir()
    body: dict[str, Any] = json.loads(run.stdout)
    assert body["score"] == json.loads(store.dumps(store.load(saved)))["score"]
    assert "NF4: windows read" in run.stderr

    from transformers import AutoTokenizer

    text = corpus.dataset("own").path.read_text("utf-8")
    ids = AutoTokenizer.from_pretrained(demo_base)(text, verbose=False)["input_ids"]
    assert len(ids) >= DEFAULT_TOKENS  # the text that ships is long enough for a quick score

    reference, variant = body["score"]["models"]
    assert (reference["label"], reference["role"]) == ("base", "reference")
    expected = cross_entropy(demo_base, ids)
    assert math.log(reference["perplexity"]["value"]) == pytest.approx(expected, rel=2e-5)
    assert variant["perplexity"]["value"] > reference["perplexity"]["value"]
    seen = variant["divergence"]
    assert 0.05 < seen["kld_mean"]["value"] < 1
    assert 0.5 < seen["top1_agreement"]["value"] < 1
    assert body["score"]["storage"]["kld_max"] < 1e-5 < seen["kld_mean"]["value"] / 1000
    assert [pair["seen_from"] for pair in body["score"]["pair"]] == ["NF4", "base"]
