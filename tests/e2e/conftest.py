"""Fixtures of several end-to-end tests: tmux, and an environment with auto-gptq, built once."""

from __future__ import annotations

import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from fakes.tmux import Tmux


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


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Tmux]:
    """A tmux server; skips without tmux."""
    if shutil.which("tmux") is None:
        pytest.skip("not installed: tmux")
    server = Tmux(tmp_path, uuid.uuid4().hex[:8])
    yield server
    server.end()
