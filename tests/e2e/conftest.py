"""What several end-to-end tests share: an environment with auto-gptq, made once and kept."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

REQUIREMENTS = (
    "auto-gptq==0.7.1",
    "transformers==4.49.0",
    "datasets<4",
    "peft<0.15",
    "accelerate<1.4",
    "numpy<2.3",
    "torch>=2.8,<2.14",
)


@pytest.fixture(scope="session")
def auto_gptq_python(_demo_made: tuple[Path, dict[str, Path]]) -> Path:
    """An interpreter with auto-gptq, made once and kept beside the checkpoints."""
    folder = _demo_made[0] / "test-environments" / "auto-gptq"
    folder.parent.mkdir(mode=0o700, exist_ok=True)
    python, made = folder / "bin" / "python", folder / "made.json"
    with FileLock(f"{folder}.lock"):
        if not (made.is_file() and json.loads(made.read_text()) == list(REQUIREMENTS)):
            create = [sys.executable, "-m", "venv", "--clear", "--without-pip", str(folder)]
            subprocess.run(create, check=True)
            pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-input"]
            run = subprocess.run([*pip, *REQUIREMENTS], capture_output=True, text=True, check=False)
            if run.returncode:
                pytest.skip(f"auto-gptq cannot be installed here: {run.stderr.strip()[-200:]}")
            made.write_text(json.dumps(REQUIREMENTS))
    return python
