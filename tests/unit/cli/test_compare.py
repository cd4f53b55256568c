"""`quantchat compare`, as it is called from a shell or a CI job."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.safe_line import is_clean
from fakes.saved_load_tests import load_test_record
from fakes.saved_scores import score_record
from fakes.saved_snapshots import MODEL_INFO, hostile_snapshots, hostile_text, snapshot, variant
from fakes.timed_snapshots import measured
from quantchat.cli import main
from quantchat.snapshot import store
from quantchat.snapshot.figures import FIGURES
from quantchat.snapshot.schema import Snapshot
from quantchat.wire.jobs import LoadTestLevel

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QUANTCHAT_SNAPSHOTS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def saved(folder: Path, *snapshots: Snapshot) -> list[str]:
    names = []
    for number, one in enumerate(snapshots):
        Path(folder, f"{number}.json").write_bytes(store.dumps(one))
        names.append(f"{number}.json")
    return names


def test_tables(folder: Path, capsys: Capture) -> None:
    files = saved(folder, measured(), measured(model_info={"kernel": "Marlin"}))
    assert main(["compare", *files]) == 0
    out = capsys.readouterr().out
    for said in ("Run 2 ", "1.json", "b ÷ a", "c ÷ a", "0.500 to 0.500", "kernel", "Marlin"):
        assert said in out
    assert "no difference shown" in out  # the runs between each other
    assert "none: read once" in out


@pytest.mark.parametrize(
    ("gates", "status"),
    [
        (["b.tpot_ms > a.tpot_ms"], 0),
        (["b.tpot_ms < 0.6 * a.tpot_ms"], 1),
        (["b.tpot_ms > a.tpot_ms", "b.decode_tps > 1.5 * a.decode_tps"], 1),
    ],
)
def test_gates_set_the_exit_status(
    folder: Path, capsys: Capture, gates: list[str], status: int
) -> None:
    (file,) = saved(folder, measured())
    options = [word for gate in gates for word in ("--fail-if", gate)]
    assert main(["compare", file, *options]) == status
    lines = capsys.readouterr().out.splitlines()
    judged = [line for line in lines if line.startswith(("failed", "passed"))]
    assert len(judged) == len(gates)
    assert any(line.startswith("failed") for line in judged) == bool(status)


def test_a_gate_that_cannot_be_decided_is_neither(folder: Path, capsys: Capture) -> None:
    (file,) = saved(folder, measured(prompts=("one",), rounds=1))
    assert main(["compare", file, "--fail-if", "b.tpot_ms < a.tpot_ms"]) == 2
    assert "undecided  b.tpot_ms < a.tpot_ms" in capsys.readouterr().out
    both = ["--fail-if", "b.tpot_ms < a.tpot_ms", "--fail-if", "a.weights_bytes > 1"]
    assert main(["compare", file, *both]) == 1


def test_verdicts_are_written_for_ci(folder: Path, capsys: Capture) -> None:
    (file,) = saved(folder, measured())
    files = ["--junit", "verdicts.xml", "--summary", "summary.md"]
    assert main(["compare", file, *files, "--fail-unless", "b.tpot_ms < a.tpot_ms"]) == 0
    assert main(["compare", file, *files, "--fail-unless", "b.tpot_ms > a.tpot_ms"]) == 1
    assert 'failures="1"' in Path("verdicts.xml").read_text("utf-8")
    assert Path("summary.md").read_text("utf-8").count("### quantchat compare 0.json") == 2
    capsys.readouterr()
    for options, said in (
        (files, "--junit writes verdicts: add --fail-if or --fail-unless"),
        (["--junit", "no/x.xml", "--fail-if", "b.tpot_ms < 1"], "no: no such folder"),
    ):
        assert main(["compare", file, *options]) == 2
        assert said in capsys.readouterr().err


def test_gates_on_scores(folder: Path, capsys: Capture) -> None:
    (file,) = saved(folder, snapshot(variants=[variant("NF4")], score=score_record(MODEL_INFO)))
    assert main(["compare", file, "--fail-unless", "a.kld < 0.5"]) == 0
    assert "passed  unless a.kld < 0.5: a.kld is 0." in capsys.readouterr().out
    assert main(["compare", file, "--json", "--fail-unless", "a.kld < 0.01"]) == 1
    (gate,) = json.loads(capsys.readouterr().out)["gates"]
    assert (gate["status"], gate["outcome"]) == ("failed", "shown otherwise")


def test_load_tests_side_by_side(folder: Path, capsys: Capture) -> None:
    variants = [variant("one"), variant("other")]
    tests = [load_test_record(LoadTestLevel(4), seconds=seconds) for seconds in (0.2, 0.4)]
    files = saved(folder, *(snapshot(variants=variants, load_test=one) for one in tests))
    assert main(["compare", *files, "--fail-if", "d.output_tps < 0.9 * b.output_tps"]) == 1
    out = capsys.readouterr().out
    assert "Run 2 1.json" in out
    ratio = out.split("one: run 2 ÷ run 1")[1].split("other: run 2")[0]
    assert "0.5" in ratio
    assert main(["compare", *files, "--json"]) == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    assert [run["load_test"]["output_tokens"] for run in runs] == [2, 2]

    files = saved(
        folder, snapshot(load_test=tests[0]), snapshot(load_test=load_test_record(LoadTestLevel(8)))
    )
    assert main(["compare", *files]) == 2
    assert "not comparable: load levels differ: 4, 8 (" in capsys.readouterr().err
    assert main(["compare", *files, "--force"]) == 0
    assert "! not comparable: load levels differ: 4, 8" in capsys.readouterr().out


def test_json_is_one_document_and_nothing_else(folder: Path, capsys: Capture) -> None:
    files = saved(folder, measured(), measured(rounds=3))
    options = ["--json", "--fail-if", "d.tpot_ms > 1.1 * b.tpot_ms"]
    assert main(["compare", *files, *options]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.isascii()
    body = json.loads(captured.out)
    assert body["comparable"]
    assert [run["rounds"] for run in body["runs"]] == [2, 3]
    assert body["columns"][1] == {
        "column": "b",
        "run": 1,
        "variant": "NF4",
        "ttft_ms": 50,
        "ttfa_ms": 50,
        "tpot_ms": 10,
        "decode_tps": 100,
        "itl_p95_ms": 10,
        "itl_p99_ms": 10,
        "prefill_tps": None,
        "draft_acceptance": None,
        "acceptance_length": None,
        "end_to_end_ms": 90,
        "answer_tokens": 5,
        "j_per_token": None,
        "weights_bytes": 100 * 2**20,
        "process_bytes": 700 * 2**20,
        "bits_per_weight": None,
    }
    assert [(r["of"], r["to"]) for r in body["ratios"]] == [
        ("b", "a"),
        ("d", "c"),
        ("c", "a"),
        ("d", "b"),
    ]
    tpot = body["ratios"][0]["figures"]["tpot_ms"]
    assert (tpot["ratio"], tpot["difference_shown"], tpot["pairs"]) == (pytest.approx(0.5), True, 6)
    assert body["differences"] == [
        {"what": "rounds", "values": {"a": "2", "b": "2", "c": "3", "d": "3"}}
    ]
    (gate,) = body["gates"]
    assert gate["gate"] == "d.tpot_ms > 1.1 * b.tpot_ms"
    assert (gate["status"], gate["quantity"]) == ("passed", "d ÷ b, TPOT")


def test_what_is_not_comparable_is_refused_unless_forced(folder: Path, capsys: Capture) -> None:
    files = saved(folder, measured(), measured(order="together", tokens=7))
    assert main(["compare", *files, "--json"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 3  # the order, and the tokens of two variants
    assert all(line.startswith("quantchat: not comparable: ") for line in lines)
    assert main(["compare", *files, "--force"]) == 0
    out = capsys.readouterr().out
    assert "! not comparable: run 1 ran one at a time, run 2 together" in out
    assert "not to be quoted" in out
    assert main(["compare", *files, "--force", "--json"]) == 0
    assert not json.loads(capsys.readouterr().out)["comparable"]


def test_the_help_names_every_figure(capsys: Capture) -> None:
    assert main(["compare", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(figure.name in text for figure in FIGURES)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "Missing argument 'SNAPSHOT…'"),
        (["nowhere"], "nowhere: no such snapshot"),
        (["1.json"], "1.json: is a chat and not a measurement (`quantchat rerun` measures"),
        (["0.json", "--fail-if", "b.x < 1"], "--fail-if 'b.x < 1', character 3: no figure is"),
        (["0.json", "--fail-if", "c.tpot_ms < 1"], "--fail-if 'c.tpot_ms < 1', character 1: no co"),
        (
            ["0.json", "--fail-if", "a.tpot_ms / 0 < 1"],
            "--fail-if 'a.tpot_ms / 0 < 1': has no finite value",
        ),
    ],
)
def test_bad_input_is_one_line(folder: Path, capsys: Capture, args: list[str], said: str) -> None:
    saved(folder, measured(), snapshot())
    assert main(["compare", *args]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.removeprefix("quantchat: ").startswith(said)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
    max_examples=25,
)
@given(
    hostile_snapshots,
    st.lists(hostile_text, min_size=2, max_size=2, unique=True),
    st.lists(hostile_text, min_size=1, max_size=3),
)
def test_hostile_snapshots_reach_no_terminal(
    capsys: Capture, hostile: Snapshot, labels: list[str], prompts: list[str]
) -> None:
    run = measured(
        labels=(labels[0], labels[1]),
        prompts=prompts,
        name=hostile.name,
        environment=hostile.environment,
    )
    with tempfile.TemporaryDirectory() as name:
        files = [str(Path(name, file)) for file in saved(Path(name), run, hostile)]
        assert main(["compare", files[0], files[0], "--force"]) == 0
        assert main(["compare", files[0], files[1]]) == 2
        assert main(["compare", files[0], "--json"]) == 0
    captured = capsys.readouterr()
    assert all(is_clean(line) for line in captured.out.splitlines())
    assert all(is_clean(line) for line in captured.err.splitlines())
