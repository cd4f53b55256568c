"""Old snapshots stay readable: one file of each schema version, as that version wrote it.

Never edit these files. If a schema change makes them invalid, it needs a new version with a new
file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fakes.saved_snapshots import MODEL_INFO, scored
from quantchat.cli import main
from quantchat.snapshot import store
from quantchat.snapshot.evaluation import EvaluatedRecord, TaskResultRecord
from quantchat.snapshot.fields import Record
from quantchat.snapshot.load_test import LoadTestedRecord
from quantchat.snapshot.pick import ComparedRecord
from quantchat.snapshot.schema import SCHEMA_VERSION, Snapshot, VariantRecord
from quantchat.snapshot.score import ScoredRecord

FOLDER = Path(__file__).parents[2] / "data" / "snapshots"
FILES = [FOLDER / f"v{version}.json" for version in range(1, SCHEMA_VERSION + 1)]

each_version = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


RENAMED = {
    "mend": "hint",
    "parting": "divergence",
    "resolved": "model_info",
    "same_top": "top1_agreement",
    "surprises": "cross_perplexities",
    "ways": "continuations",
    "not_as_promised": "format_deviation",
}
"""Keys of old files and their names today."""


def assert_holds(new: Any, old: Any, where: str = "") -> None:
    """Each value of `old` stands unchanged in `new`, which may have more keys."""
    if isinstance(old, dict):
        assert isinstance(new, dict), where
        for key, value in old.items():
            name = RENAMED.get(key, key)
            assert name in new, f"{where}.{key} is lost"
            assert_holds(new[name], value, f"{where}.{key}")
    elif isinstance(old, list):
        assert isinstance(new, list), where
        assert len(new) == len(old), where
        for index, value in enumerate(old):
            assert_holds(new[index], value, f"{where}[{index}]")
    else:
        assert new == old, where


@each_version
def test_nothing_of_an_old_file_is_lost(file: Path) -> None:
    old = json.loads(file.read_bytes())
    assert old["schema_version"] == int(file.stem[1:])
    read = json.loads(store.dumps(store.load(file)))
    assert_holds(read, {key: value for key, value in old.items() if key != "schema_version"})


def test_a_failure_of_a_kind_that_is_no_longer_known_is_read() -> None:
    body = json.loads(FILES[0].read_bytes())
    body["variants"][0]["failure"] = {"kind": "gremlins", "reason": "They did it."}
    read = store.loads(json.dumps(body).encode(), where="it")
    failure = read.variants[0].failure
    assert failure is not None
    assert (failure.kind, failure.reason) == ("gremlins", "They did it.")
    assert store.loads(store.dumps(read), where="it") == read


@each_version
def test_an_old_file_is_shown_compared_and_reported(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["snapshots", "show", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "GPTQ 4-bit" in shown
    assert "TPOT" in shown
    assert main(["compare", str(file), "--fail-if", "b.weights_bytes > a.weights_bytes"]) == 0
    assert main(["compare", str(file), "--fail-if", "b.weights_bytes < a.weights_bytes"]) == 1
    report = tmp_path / "report.html"
    assert main(["report", str(file), "-o", str(report)]) == 0
    assert "B against A, one at a time" in report.read_text(encoding="utf-8")


def read(body: dict[str, Any]) -> Snapshot:
    return store.loads(json.dumps(body).encode(), where="a file")


def test_renamed_fields_are_read_under_their_former_names() -> None:
    now = json.loads(store.dumps(store.load(FILES[0])))
    turn, failure = now["turns"][0], {"kind": "internal", "reason": "it broke", "hint": "try again"}
    turn["answers"][0]["failure"] = failure
    turn["divergence"] = {
        "point": 0,
        "continuations": [{"variant": "A", "token": "x"}, {"variant": "B", "token": "y"}],
    }
    turn["answers"][0]["cross_perplexities"] = [{"by": "A", "logprobs": [-0.5]}]
    then = json.loads(json.dumps(now))
    old = then["turns"][0]
    old["answers"][0]["failure"]["mend"] = old["answers"][0]["failure"].pop("hint")
    old["answers"][0]["surprises"] = old["answers"][0].pop("cross_perplexities")
    old["parting"] = old.pop("divergence")
    old["parting"]["ways"] = old["parting"].pop("continuations")
    assert read(then) == read(now)


def test_a_deviating_format_is_read_under_its_former_name() -> None:
    now = json.loads(store.dumps(store.load(FILES[-1])))
    then = json.loads(json.dumps(now))
    model_infos = [v["model_info"] for v in (*now["variants"], *then["variants"])]
    for model_info in filter(None, model_infos):
        model_info["format_deviation"] = "experts not quantized: 9 % of the weights"
    old = [variant["model_info"] for variant in then["variants"] if variant["model_info"]]
    assert old
    for model_info in old:
        model_info["not_as_promised"] = model_info.pop("format_deviation")
    assert read(then) == read(now)


def test_top_1_agreement_is_read_under_its_former_name() -> None:
    snapshot = scored()
    then = json.loads(store.dumps(snapshot))
    score = then["score"]
    pieces = [model["divergence"] for model in score["models"]] + [
        pair["divergence"] for pair in score["pair"]
    ]
    for piece in filter(None, pieces):
        piece["same_top"] = piece.pop("top1_agreement")
    assert read(then) == snapshot


def record_with(kind: type[Record], **changes: Any) -> Record:
    """A record of `kind` in which each other required field has an empty value of its type."""
    empty = {"string": "", "integer": 0, "number": 0.0, "array": [], "boolean": False}
    schema = kind.model_json_schema()
    fields = {}
    for name in schema["required"]:
        described = schema["properties"][name]
        fields[name] = described.get("enum", [empty.get(described.get("type"))])[0]
    return kind.model_validate({**fields, **changes})


@pytest.mark.parametrize(
    ("kind", "former", "now", "value"),
    [
        (ComparedRecord, "told_apart", "difference_shown", True),
        (LoadTestedRecord, "counted", "tokens_counted", True),
        (TaskResultRecord, "documents", "questions", 12),
        (EvaluatedRecord, "resolved", "model_info", MODEL_INFO),
        (LoadTestedRecord, "resolved", "model_info", MODEL_INFO),
        (ScoredRecord, "resolved", "model_info", MODEL_INFO),
        (VariantRecord, "resolved", "model_info", MODEL_INFO),
        (TaskResultRecord, "documents_sha256", "questions_sha256", "d" * 64),
    ],
)
def test_a_renamed_field_of_a_record_is_read(
    kind: type[Record], former: str, now: str, value: object
) -> None:
    current = record_with(kind, **{now: value})
    body = json.loads(current.model_dump_json())
    body[former] = body.pop(now)
    assert kind.model_validate_json(json.dumps(body)) == current
    assert getattr(current, now) == value
