"""One new line in the list of figures adds a figure to all comparisons of runs."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from pytest import approx

from fakes.page_reader import PageReader
from fakes.printed_document import printed
from fakes.timed_snapshots import measured
from quantchat.cli import main
from quantchat.features.measure import tables
from quantchat.snapshot import figures, store
from quantchat.snapshot.figures import AnswerFigure, ProcessFigure
from quantchat.snapshot.ratios import compare_sides
from quantchat.snapshot.schema import AnswerRecord, Snapshot, VariantRecord
from quantchat.statistics.drafts import Drafts
from quantchat.wire.variant import Ledger

Capture = pytest.CaptureFixture[str]


def _median(answer: AnswerRecord) -> float | None:
    return answer.timing.itl_ms.p50 if answer.timing.itl_ms else None


def _top(variant: VariantRecord, ledger: Ledger | None) -> float | None:
    return ledger.peak if ledger else None


ADDED = [
    AnswerFigure("median_ms", "median ITL", "ms", True, _median),
    ProcessFigure("top_bytes", "memory, peak", "B", True, True, _top),
]


@pytest.fixture(params=ADDED, ids=lambda figure: figure.name)
def added(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AnswerFigure | ProcessFigure:
    figure: AnswerFigure | ProcessFigure = request.param
    monkeypatch.setattr(figures, "FIGURES", (*figures.FIGURES, figure))
    return figure


@pytest.fixture
def saved(tmp_path: Path) -> str:
    path = tmp_path / "saved.json"
    path.write_bytes(store.dumps(measured()))
    return str(path)


def test_compare_shows_it(added: AnswerFigure | ProcessFigure, saved: str, capsys: Capture) -> None:
    assert main(["compare", saved]) == 0
    shown = capsys.readouterr().out
    assert added.title in shown
    assert added.name in shown.split("Means;")[1].split("Ratios")[0]


def test_gates_take_it_and_their_help_names_it(
    added: AnswerFigure | ProcessFigure, saved: str, capsys: Capture
) -> None:
    assert main(["compare", saved, "--fail-if", f"b.{added.name} < 9 * a.{added.name}"]) == 1
    assert f"b ÷ a, {added.title}" in " ".join(capsys.readouterr().out.split())
    assert main(["compare", "--help"]) == 0
    assert added.name in capsys.readouterr().out


def test_json_has_it(added: AnswerFigure | ProcessFigure, saved: str, capsys: Capture) -> None:
    assert main(["compare", saved, "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert body["columns"][0][added.name] > 0
    assert body["ratios"][0]["figures"][added.name]["ratio"] > 0


def test_reports_show_it(added: AnswerFigure | ProcessFigure, saved: str, tmp_path: Path) -> None:
    assert main(["report", saved, "-o", str(tmp_path / "r.html")]) == 0
    assert added.title in PageReader((tmp_path / "r.html").read_bytes()).text
    assert main(["report", saved, "-o", str(tmp_path / "r.md")]) == 0
    assert f"| {added.title} |" in (tmp_path / "r.md").read_text("utf-8")


def test_csv_has_it(added: AnswerFigure | ProcessFigure, saved: str, tmp_path: Path) -> None:
    assert main(["report", saved, "-o", f"{tmp_path}/r/"]) == 0
    with (tmp_path / "r" / "figures.csv").open(encoding="utf-8", newline="") as file:
        (row,) = [row for row in csv.DictReader(file) if row["figure"] == added.name]
    assert (row["unit"], row["difference_shown"]) in (("ms", "yes"), ("B", "no"))
    assert float(row["a"]) > 0 and float(row["ratio"]) > 0
    with (tmp_path / "r" / "answers.csv").open(encoding="utf-8", newline="") as file:
        of_each_answer = added.name in next(csv.reader(file))
    assert of_each_answer is isinstance(added, AnswerFigure)


def test_ttfa_is_shown_where_a_model_thinks() -> None:
    snapshot = measured()
    assert "ttfa_ms" not in [one.name for one in compare_sides(snapshot)]
    body = snapshot.model_dump()
    for turn in body["turns"]:
        for answer in turn["answers"]:
            answer["thoughts"], answer["timing"]["ttfa_ms"] = "Hm.", 300.0
    snapshot = store.loads(json.dumps(body).encode(), where="")
    assert "ttfa_ms" in [one.name for one in compare_sides(snapshot)]


def drafted(*labels: str) -> Snapshot:
    """A measurement in which the variants `labels` drafted: 30 of 40 tokens in 10 passes."""
    body = measured().model_dump()
    for turn in body["turns"]:
        for answer in turn["answers"]:
            if answer["variant"] in labels:
                answer["drafts"] = {"drafted": 40, "accepted": 30, "steps": 10}
    return store.loads(json.dumps(body).encode(), where="")


def test_acceptance_is_compared_where_both_draft() -> None:
    names = ("draft_acceptance", "acceptance_length")
    assert not {*names} & {one.name for one in compare_sides(measured())}
    found = {one.name: one for one in compare_sides(drafted("GPTQ", "NF4"))}
    for name, value, unit in zip(names, (75, 4), ("%", "tokens"), strict=True):
        assert (found[name].a, found[name].b) == approx((value, value))
        assert found[name].unit == unit


def test_acceptance_of_one_side_is_shown_and_gated(tmp_path: Path, capsys: Capture) -> None:
    """One variant with a draft and one without: their ratio of speeds is the speed-up."""
    snapshot = drafted("NF4")
    assert "draft of NF4: 75.0 % accepted (180 of 240 tokens), 4.0 tokens per pass" in printed(
        tables.blocks(snapshot)
    )
    saved = tmp_path / "drafted.json"
    saved.write_bytes(store.dumps(snapshot))
    assert main(["compare", str(saved), "--fail-if", "b.draft_acceptance < 80"]) == 1
    shown = capsys.readouterr().out
    assert "draft_acceptance" in shown and "75.0" in shown
    assert main(["compare", str(saved), "--fail-if", "b.draft_acceptance < 70"]) == 0
    assert main(["report", str(saved), "-o", str(tmp_path / "r.md")]) == 0
    report = (tmp_path / "r.md").read_text("utf-8")
    assert "75 % (30 of 40), 4.0 tokens per pass" in report and "draft of NF4" in report


def test_nothing_drafted_is_not_an_acceptance_of_zero() -> None:
    assert Drafts(0, 0, 12).acceptance is None and Drafts(0, 0, 12).mean_length == 1
    assert Drafts(8, 0, 2).acceptance == 0 and Drafts(0, 0, 0).mean_length is None
