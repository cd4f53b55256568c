"""What no answer needs is not imported into a worker, and where it may be needed it is."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import quantchat

PROGRAM = """
import importlib.util, sys
from quantchat.worker import unneeded
from quantchat.worker.protocol import Load
unneeded.hide(Load(sys.argv[1], "", {}, trust_remote_code=sys.argv[2] == "trusted"))
print([name for name in ("scipy", "torchao") if importlib.util.find_spec(name) is None])
"""


@pytest.mark.parametrize(
    ("engine", "trust", "hidden"),
    [
        ("gptq", "", ["scipy", "torchao"]),
        ("bitsandbytes", "", ["scipy", "torchao"]),
        ("transformers", "", ["scipy"]),
        ("transformers", "trusted", []),
        ("auto-gptq", "", []),
    ],
)
def test_what_is_hidden_from_which_engine(engine: str, trust: str, hidden: list[str]) -> None:
    for name in ("scipy", "torchao"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, engine, trust],
        env={"PYTHONPATH": str(Path(quantchat.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == str(hidden)
