"""Snapshots as CSV: tidy and complete, with nothing that a spreadsheet reads as a formula."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, settings

from fakes.saved_measurement import measured
from fakes.saved_snapshots import answer, hostile_snapshots, snapshot
from quantchat.report.csv_tables import tables
from quantchat.snapshot.schema import Snapshot, TurnRecord


def rows(name: str, *snapshots: Snapshot) -> list[dict[str, str]]:
    data = tables([(f"{n}.json", one) for n, one in enumerate(snapshots, 1)])[name]
    return list(csv.DictReader(io.StringIO(data.decode(), newline=""), strict=True))


def test_a_row_for_each_answer(tmp_path: Path) -> None:
    found = rows("answers.csv", measured(tmp_path), snapshot())
    assert len(found) == 2 * 6 + 2
    assert [row["snapshot"] for row in found] == ["1.json"] * 12 + ["2.json"] * 2
    first, second = found[:2]
    assert (first["task"], first["round"], first["variant"]) == ("1", "1", "A")
    assert first["order"] == "in-turn"
    assert float(first["tpot_ms"]) == 20.0
    assert float(second["decode_tps"]) == 100.0
    assert int(second["process_bytes"]) == 256 * 2**20
    assert first["divergence_point"] == "4"
    assert first["answer"] == "The capital of France is Paris."


def test_a_row_for_each_token() -> None:
    found = rows("tokens.csv", snapshot())
    assert [(r["variant"], r["index"], r["id"], r["piece"]) for r in found[:3]] == [
        ("GPTQ", "0", "3", "Pa"), ("GPTQ", "1", "1", ""), ("GPTQ", "2", "4", "ris."),
    ]  # fmt: skip
    assert [float(row["since_prompt_ms"]) for row in found[:3]] == [100, 120, 140]
    assert [row["itl_ms"] for row in found[:3]] == ["", "20.0", "20.0"]
    assert len(found) == 6


def test_what_is_not_known_is_empty() -> None:
    waiting = answer(
        "A", request=None, ledger=None, received_ns=0, ids=[7], pieces=["x"], times_ns=[5]
    )
    turn = TurnRecord(number=1, prompt="?", answers=[waiting], divergence_point=None)
    (row,) = rows("answers.csv", snapshot(turns=[turn]))
    for name in ("task", "round", "process_bytes", "threads", "divergence_point", "failure"):
        assert row[name] == "", name
    (token,) = rows("tokens.csv", snapshot(turns=[turn]))
    assert (token["since_prompt_ms"], token["itl_ms"]) == ("", "")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\n", "\r", "＝", "＠"])
def test_a_formula_is_text(start: str) -> None:
    text = f'{start}HYPERLINK("http://evil.example",1)'
    said = answer(text, text=text, pieces=[text, "-", "+1"])
    turn = TurnRecord(number=1, prompt=text, answers=[said], divergence_point=None)
    saved = snapshot(turns=[turn])
    cells = [
        cell
        for name in ("answers.csv", "tokens.csv")
        for row in rows(name, saved)
        for cell in row.values()
    ]
    assert sum("HYPERLINK" in cell for cell in cells) == 3 + 3 + 1
    for cell in cells:
        assert not cell.startswith(("=", "+", "-", "@", "\t", "\n", "\r", "＝", "＠"))


@given(hostile_snapshots)
@settings(max_examples=40, deadline=None)
def test_any_snapshot_can_be_written_and_read(saved: Snapshot) -> None:
    answers = [one for turn in saved.turns for one in turn.answers]
    assert len(rows("answers.csv", saved)) == len(answers)
    assert len(rows("tokens.csv", saved)) == sum(len(one.ids) for one in answers)
