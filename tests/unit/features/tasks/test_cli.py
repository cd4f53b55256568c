"""`quantchat eval` and its results: arguments refused in one line, and what is shown."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from fakes.saved_evaluations import done, evaluation, figure
from fakes.saved_snapshots import MODEL_INFO, scored
from quantchat.cli import main
from quantchat.report import writer
from quantchat.report.csv_tables import tables
from quantchat.snapshot import store
from quantchat.snapshot.evaluation import EvaluationRecord

Capture = pytest.CaptureFixture[str]

pytestmark = pytest.mark.usefixtures("own_folders")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--tasks", "./gone.yaml"],
            "./gone.yaml: no such file (give the name of a task or a YAML file)",
        ),
        (["--tasks", "gone.yml"], "gone.yml: no such file"),
        (["--tasks", "own,,"], "--tasks: a task name is empty"),
        (["--limit", "0"], "not in the range x>=1"),
        (["--few-shot", "-1"], "not in the range 0<=x<=64"),
        (["--batch", "0"], "not in the range 1<=x<=1024"),
        (["--reference", "bf61"], 'bf61: no variant has this label (did you mean "bf16"?)'),
    ],
)
def test_bad_input_is_one_line(options: list[str], said: str, capsys: Capture) -> None:
    assert main(["eval", "demo", *options]) == 2
    shown = capsys.readouterr()
    assert not shown.out
    assert shown.err.count("\n") == 1
    assert said in shown.err


def saved(folder: Path, name: str, **changes: Any) -> str:
    found: EvaluationRecord = evaluation(
        done("bf16", "reference", figure("11110000")),
        done("GPTQ", "variant", figure("10110001"), note="made from another"),
        done("NF4", "variant", figure("11110000")),
        **changes,
    )
    snapshot = scored().model_copy(update={"score": None, "evaluation": found, "name": name})
    return str(store.save(snapshot, folder))


def test_the_table_says_which_answers_changed(tmp_path: Path, capsys: Capture) -> None:
    assert main(["snapshots", "show", saved(tmp_path, "Tasks", undone=["FP4"])]) == 0
    lines = capsys.readouterr().out.splitlines()
    # Each by its first line: further down the tables say what ran.
    rows = {line.split()[0]: line.split()[1:] for line in reversed(lines) if line.strip()}
    assert rows["GPTQ"] == ["50", "±10", "+0", "±18", "48.5", "1", "1", "1"]
    assert rows["NF4"][-3:] == ["0", "0", "1"]
    assert rows["bf16"][:3] == ["reference", "50", "±10"]
    assert "! GPTQ: made from another" in lines
    assert "! stopped before the end, not asked: FP4" in lines


def test_the_list_says_what_it_is(tmp_path: Path, capsys: Capture) -> None:
    saved(tmp_path, "Tasks")
    assert main(["--snapshots", str(tmp_path), "snapshots", "list"]) == 0
    assert " tasks " in capsys.readouterr().out


def test_two_are_laid_side_by_side(tmp_path: Path, capsys: Capture) -> None:
    files = [saved(tmp_path, "One"), saved(tmp_path, "Two")]
    assert main(["compare", *files]) == 0
    out = capsys.readouterr().out
    assert "Run 1" in out and "Run 2" in out and out.count("letters: acc") == 2
    assert main(["compare", *files, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["comparable"]
    assert [run["name"] for run in told["runs"]] == ["One", "Two"]


def test_what_was_asked_otherwise_is_not_compared(tmp_path: Path, capsys: Capture) -> None:
    files = [saved(tmp_path, "One"), saved(tmp_path, "Two", chat_template=True)]
    assert main(["compare", *files]) == 2
    assert "chat template differs: False, True" in capsys.readouterr().err
    assert main(["compare", *files, "--force"]) == 0
    assert "! not comparable: chat template differs" in capsys.readouterr().out
    assert main(["compare", files[0], "--fail-if", "b.ttft_ms > 1"]) == 2
    assert "is a figure of `quantchat run`" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_a_report_holds_it(tmp_path: Path, name: str) -> None:
    file = Path(saved(tmp_path, "Tasks"))
    written = writer.write([(file.name, store.load(file))], str(tmp_path / name)).read_text()
    assert "letters: acc" in written
    assert "exact test" in written


def test_answers_to_other_questions_are_no_flips(tmp_path: Path, capsys: Capture) -> None:
    other = done("GPTQ", "variant", figure("10110001"))
    (task,) = other.tasks
    moved = task.model_copy(update={"questions_sha256": "e" * 64})
    found = evaluation(
        done("bf16", "reference", figure("11110000")), other.model_copy(update={"tasks": [moved]})
    )
    snapshot = scored().model_copy(update={"score": None, "evaluation": found})
    assert main(["snapshots", "show", str(store.save(snapshot, tmp_path))]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "GPTQ 50 ±10 – – – –" in out
    assert "! GPTQ and the reference got different prompts in letters" in out


def test_another_reference_is_not_compared(tmp_path: Path, capsys: Capture) -> None:
    files = []
    for checkpoint in ("a" * 64, "b" * 64):
        ran = dataclasses.replace(MODEL_INFO, checkpoint_hash=checkpoint)
        found = evaluation(done("bf16", "reference", figure("1100"), model_info=ran))
        snapshot = scored().model_copy(update={"score": None, "evaluation": found})
        files.append(str(store.save(snapshot, tmp_path)))
    assert main(["compare", *files]) == 2
    assert "reference differs: aaaaaaaaaaaa in bfloat16, bbbb" in capsys.readouterr().err


def test_without_the_harness_nothing_is_made(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["eval", "demo"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "lm-evaluation-harness is not installed (python -m pip install" in told


def test_a_folder_of_tables_has_one_of_tasks(tmp_path: Path) -> None:
    snapshot = store.load(Path(saved(tmp_path, "=Tasks")))
    rows = tables([("s.json", snapshot)])["tasks.csv"].decode().splitlines()
    assert rows[1] == "s.json,bf16,reference,letters,1,0,8,acc,none,0.5,0.1,,,,,8"
    assert rows[2].startswith("s.json,GPTQ,variant,letters,1,0,8,acc,none,0.5,0.1,1,1,1.0,0.48")
    assert "tasks.csv" not in tables([("s.json", scored())])
