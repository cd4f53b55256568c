"""The README's table of decoding is the one that the kept result gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import quantchat

ROOT = Path(__file__).parents[2]


def test_the_readme_shows_the_kept_result() -> None:
    printed = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "decode.py"), "--table"],
        env={"PYTHONPATH": str(Path(quantchat.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert printed.count("\n") > 3
    assert printed in (ROOT / "README.md").read_text(encoding="utf-8")
