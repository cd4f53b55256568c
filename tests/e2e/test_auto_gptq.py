"""auto-gptq in its own environment, and GPTQModel: one checkpoint, the same answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.model, pytest.mark.timeout(900)]

PROFILE = """
name = "GPTQModel beside auto-gptq"

[[variants]]
label = "GPTQModel"
engine = "gptq"
model = "{model}"

[[variants]]
label = "auto-gptq"
engine = "auto-gptq"
model = "{model}"
env = "{env}"
"""


def test_it_answers_as_gptqmodel_does(demo_gptq: Path, auto_gptq_env: str, tmp_path: Path) -> None:
    profile = tmp_path / "p.toml"
    profile.write_text(PROFILE.format(model=demo_gptq, env=auto_gptq_env))
    command = [sys.executable, "-m", "quantchat", "run", str(profile), "--json"]
    command += ["--prompt", "What is the capital of France?", "--max-new-tokens", "8"]
    command += ["--rounds", "1", "--warmup", "0", "--order", "in-turn", "--save", str(tmp_path)]
    logs = str(tmp_path / "logs")
    run = subprocess.run(
        command,
        env={**os.environ, "QUANTCHAT_LOGS": logs},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    snapshot = json.loads(next(tmp_path.glob("2*.json")).read_text())
    theirs, own = (variant["model_info"] for variant in reversed(snapshot["variants"]))
    assert theirs["kernel"].startswith("auto-gptq qlinear_")
    assert theirs["libraries"]["transformers"] == "4.49.0"
    assert theirs["libraries"]["auto-gptq"] == "0.7.1"
    assert "gptqmodel" not in theirs["libraries"]  # nothing of this environment is seen there
    assert own["libraries"]["transformers"].startswith("5.")
    assert theirs["tokenizer_hash"] == own["tokenizer_hash"]
    assert theirs["checkpoint_hash"] == own["checkpoint_hash"]
    assert theirs["parameters"] == own["parameters"]
    ours, other = snapshot["turns"][0]["answers"]
    assert ours["text"] == other["text"] == "The capital of France is Paris."
    assert ours["ids"] == other["ids"]
    assert all(b > a for a, b in zip(other["times_ns"], other["times_ns"][1:], strict=False))
