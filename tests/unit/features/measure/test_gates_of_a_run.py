"""`run` evaluates its gates on its own measurement."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fakes.scripted_worker import Script, ScriptedProvider, starter
from quantchat.cli import main
from quantchat.console.gates import GateOptions
from quantchat.features.measure.printing import measure_and_print
from quantchat.measuring.rounds import Plan, Task
from quantchat.profile.model import Profile
from quantchat.session.comparison import Comparison
from quantchat.snapshot.expression import Option

Capture = pytest.CaptureFixture[str]


def run(folder: Path, *conditions: tuple[Option, str], as_json: bool = False) -> int:
    """B decodes twice as fast as A."""
    scripts = {"A": Script(token_ms=20.0), "B": Script(token_ms=10.0)}
    variants = [{"label": label, "engine": "bitsandbytes", "model": "m"} for label in scripts]
    profile = Profile.model_validate({"name": "Scripted", "variants": variants})
    comparison = Comparison(
        profile, provider=ScriptedProvider(scripts), start=starter(scripts, folder)
    )
    gates = GateOptions(conditions, folder / "verdicts.xml" if conditions else None, None)
    plan = Plan((Task("one"), Task("two")), rounds=2, warmup=0)
    return measure_and_print(comparison, plan, folder, as_json=as_json, gates=gates)


@pytest.mark.parametrize(
    ("option", "gate", "status", "word"),
    [
        ("--fail-unless", "b.decode_tps > 1.5 * a.decode_tps", 0, "passed"),
        ("--fail-if", "b.decode_tps > 1.5 * a.decode_tps", 1, "failed"),
        ("--fail-unless", "b.process_bytes < 1e12", 2, "undecided"),
        ("--fail-unless", "b.itl_p99_ms < a.itl_p95_ms", 0, "passed"),
    ],
)
def test_the_exit_status(
    tmp_path: Path, capsys: Capture, option: Option, gate: str, status: int, word: str
) -> None:
    assert run(tmp_path, (option, gate)) == status
    assert any(line.startswith(word) for line in capsys.readouterr().out.splitlines())
    assert (tmp_path / "verdicts.xml").is_file()


def test_json_stays_a_snapshot(tmp_path: Path, capsys: Capture) -> None:
    assert run(tmp_path, ("--fail-if", "b.tpot_ms < a.tpot_ms"), as_json=True) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["name"] == "Scripted"
    assert "failed  b.tpot_ms < a.tpot_ms" in captured.err


@pytest.mark.parametrize("command", ["run", "score"])
def test_a_bad_gate_is_refused_before_anything_is_loaded(command: str, capsys: Capture) -> None:
    assert main([command, "demo", "--fail-if", "b.nothing > 1"]) == 2
    assert 'no figure is called "nothing"' in capsys.readouterr().err
