"""Fixtures of several end-to-end tests: an environment with auto-gptq, built once and cached."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock


@pytest.fixture(scope="session")
def auto_gptq_env(_demo_made: tuple[Path, dict[str, Path]]) -> str:
    """The name of an environment with auto-gptq, made by the command and kept in the cache."""
    cache = _demo_made[0]
    with FileLock(cache / ".tests-auto-gptq.lock"):  # another test process may be at it
        run = subprocess.run(
            [sys.executable, "-m", "quantchat", "env", "create", "auto-gptq"],
            capture_output=True,
            text=True,
            check=False,
        )
    if run.returncode:
        pytest.skip(f"auto-gptq cannot be installed here: {run.stderr.strip()[-200:]}")
    return "auto-gptq"


@pytest.fixture(scope="session")
def auto_gptq_python(auto_gptq_env: str, _demo_made: tuple[Path, dict[str, Path]]) -> Path:
    """The interpreter of that environment."""
    return _demo_made[0] / "environments" / auto_gptq_env / "bin" / "python"
