"""A score as shown in the terminal, in a report, in a list, and beside another score."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pytest

from fakes.printed_document import printed
from fakes.saved_scores import read, score_record, setting
from fakes.saved_snapshots import MODEL_INFO, scored, snapshot
from fakes.timed_snapshots import measured
from quantchat.cli import main
from quantchat.document.figures import with_error
from quantchat.features.score import tables as report
from quantchat.report.csv_tables import tables
from quantchat.snapshot import store
from quantchat.snapshot.schema import Snapshot
from quantchat.snapshot.score import ScoreRecord, obstacles
from quantchat.statistics.quality import Quantity

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("value", "error", "shown"),
    [
        (24.697, 2.09, "24.7 ±2.1"),
        (0.24573, 0.0102, "0.246 ±0.010"),
        (0.000001, 0.000263, "0.00000 ±0.00026"),
        (4070608.3, 1103481.0, "4.07e+06 ±1.1e+06"),
        (0.0, 0.0, "0"),
        (12.5, None, "12"),
        (0.0123, None, "0.012"),
    ],
)
def test_a_figure_has_the_digits_that_its_error_leaves(
    value: float, error: float | None, shown: str
) -> None:
    assert with_error(Quantity(value, error, None)).startswith(shown)


def test_the_wider_error_is_shown_with_sign_and_scale() -> None:
    assert with_error(Quantity(0.5, 0.01, 0.05), times=100, signed=True) == "+50.0 ±5.0"
    assert with_error(Quantity(20.0, 5.0, 1.0), least=2) == "20.00 ±5.00"


def test_the_whole_score_says_what_was_read_and_what_is_in_doubt() -> None:
    text = printed(report.blocks(score_record(MODEL_INFO)))
    for said in (
        "own (SHA-256 aaaaaaaaaaaa): 512 tokens of tokenizer bbbbbbbbbbbb, 248 scored",
        "windows of 64 tokens, a stride of 64, the first 33 of each only read, begun without a BOS",
        "half precision (1.0 MiB), at a KLD of 1.0e-08",
        "bf16 reference", "bf16, eager attention noise floor", "99.9 %", "RMS Δp, %",
        "top-1 agreement, %",
        "seen from", "! GPTQ failed: it broke", "not read: int8", "! NF4: made of Q4_1",
        "the reference is itself quantized: TorchQuantLinear gptq 4 bits",
    ):  # fmt: skip
        assert said in text, said
    begun = printed(report.blocks(score_record(MODEL_INFO, setting=setting(begin="<s>"))))
    assert "begun with <s>" in begun


def test_a_snapshot_shows_its_score_and_the_list_says_so(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANTCHAT_SNAPSHOTS", str(tmp_path))
    path = store.save(scored())
    assert main(["snapshots", "show", path.name]) == 0
    shown = capsys.readouterr().out
    assert "Against the reference" in shown
    assert "Memory" not in shown  # none was measured
    assert main(["snapshots"]) == 0
    assert "score" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_a_report_has_its_tables_and_doubts(tmp_path: Path, name: str) -> None:
    file, out = tmp_path / "s.json", tmp_path / name
    file.write_bytes(store.dumps(scored()))
    assert main(["report", str(file), "-o", str(out)]) == 0
    text = out.read_text("utf-8")
    for said in ("Against the reference", "Percentiles of the KLD", "GPTQ failed: it broke"):
        assert said in text
    assert "a chat: each figure" not in text


def test_a_report_of_two_scores_says_where_they_cannot_be_compared(tmp_path: Path) -> None:
    out = tmp_path / "report.md"
    one, same, other = saved(tmp_path, scored(), scored(), scored(setting=setting(tokens=9)))
    assert main(["report", one, same, "-o", str(out)]) == 0
    assert "not comparable" not in out.read_text("utf-8")
    assert "a score" in out.read_text("utf-8")
    assert main(["report", one, other, "-o", str(out)]) == 0
    assert "scores not comparable: token count differs: 512, 9" in out.read_text("utf-8")


def test_a_row_for_each_figure_in_csv() -> None:
    data = tables([("s.json", scored()), ("chat.json", snapshot())])["scores.csv"].decode()
    rows = list(csv.DictReader(io.StringIO(data)))
    found = {(row["model"], row["figure"], row["percent"]): row for row in rows}
    seen = scored().score.models[2].divergence  # type: ignore[union-attr]
    assert seen is not None
    row = found["NF4", "kld_mean", ""]
    assert float(row["value"]) == seen.kld_mean.value
    assert float(row["clustered_error"]) == seen.kld_mean.clustered
    assert (
        float(found["NF4", "delta_p", "0.1"]["value"]) == seen.delta_p_percentiles[0].figure.value
    )
    assert ("bf16", "kld_mean", "") not in found
    assert "scores.csv" not in tables([("chat.json", snapshot())])


# ------------------------------------------------------------ beside another


def test_what_makes_scores_incomparable() -> None:
    one = score_record(MODEL_INFO)
    assert obstacles([one, score_record(MODEL_INFO)]) == []
    other = score_record(
        MODEL_INFO,
        setting=setting(
            text_sha256="d" * 64, tokens=8, window=32, stride=16, context=16, begin="<s>",
            tokenizer_hash="e" * 64, ids_sha256="f" * 64, vocabulary=9,
        ),
        models=[read("fp16", "reference", None, 0.1)],
    )  # fmt: skip
    found = obstacles([one, other])
    assert len(found) == 10
    assert "token count differs: 512, 8" in found
    assert "BOS differs: none, <s>" in found
    assert f"text differs: {'a' * 12}…, {'d' * 12}…" in found
    assert "reference differs: /models/smol in bfloat16, none" in found


def saved(folder: Path, *snapshots: Snapshot) -> list[str]:
    files = [folder / f"{number}.json" for number in range(len(snapshots))]
    for file, one in zip(files, snapshots, strict=True):
        file.write_bytes(store.dumps(one))
    return [str(file) for file in files]


def test_scores_of_one_setting_are_laid_side_by_side(tmp_path: Path, capsys: Capture) -> None:
    files = saved(tmp_path, scored(), scored())
    assert main(["compare", *files]) == 0
    out = capsys.readouterr().out
    assert "all read own" in out
    assert [line.split()[1] for line in out.splitlines() if line.startswith(" NF4")] == ["1", "2"]
    assert main(["compare", *files, "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert body["comparable"]
    assert [run["score"]["models"][0]["label"] for run in body["runs"]] == ["bf16", "bf16"]


def test_scores_of_two_settings_are_refused(tmp_path: Path, capsys: Capture) -> None:
    files = saved(tmp_path, scored(), scored(setting=setting(stride=32, context=32)))
    assert main(["compare", *files]) == 2
    said = capsys.readouterr()
    assert not said.out
    assert "not comparable: stride differs: 64, 32" in said.err
    assert "--force" in said.err
    assert main(["compare", *files, "--force"]) == 0
    assert "! not comparable: stride differs" in capsys.readouterr().out


def test_what_cannot_be_asked_of_scores(tmp_path: Path, capsys: Capture) -> None:
    files = saved(tmp_path, scored(), measured())
    assert main(["compare", files[0], "--fail-if", "b.tpot_ms > a.tpot_ms"]) == 2
    assert "is a figure of `quantchat run`" in capsys.readouterr().err
    assert main(["compare", *files]) == 2
    assert "is a score and not a measurement" in capsys.readouterr().err


# ------------------------------------------------------------ depth in the context


def with_depths(*ends: int, parts: int, **changes: Any) -> ScoreRecord:
    """A score whose NF4 has a KLD of 0.1, 0.2, … in so many parts of the windows."""
    record = score_record(MODEL_INFO)
    seen = record.models[2].divergence
    assert seen is not None
    depths = [Quantity((n + 1) / 10, 0.01, None) for n in range(parts)]
    model = record.models[2].model_copy(
        update={"divergence": dataclasses.replace(seen, kld_by_depth=depths)}
    )
    window = ends[-1] if ends else 64
    return record.model_copy(
        update={
            "setting": setting(
                window=window,
                stride=window,
                context=window // 2 + 1,
                depth_ends=list(ends),
                **changes,
            ),
            "models": [model],
        }
    )


def test_the_kld_by_depth_names_the_tokens_of_each_part() -> None:
    record = with_depths(1, 128, 512, 1000, parts=3, window_limit="the text has 1000 tokens")
    text = printed(report.blocks(record))
    for said in (
        "2 to 128", "129 to 512", "513 to 1000", "0.100 ±0.010", "0.300 ±0.010",
        "windows of 1000 tokens (4096 was too long: the text has 1000 tokens)",
        "the first 501 of each only for the KLD by depth",
    ):  # fmt: skip
        assert said in " ".join(text.split()), said
    rows = report.data_table([("s.json", scored().model_copy(update={"score": record}))]).rows
    assert [(row[5], row[6]) for row in rows if row[3] == "kld_by_depth"] == [
        ("2 to 128", 0.1), ("129 to 512", 0.2), ("513 to 1000", 0.3),
    ]  # fmt: skip


def test_an_older_score_has_four_equal_parts_of_the_scored_tokens() -> None:
    record = with_depths(parts=4)
    assert record.setting.independent == 8  # its windows
    text = printed(report.blocks(record))
    for said in ("34 to 41", "42 to 49", "50 to 57", "58 to 64"):
        assert said in text, said


# ------------------------------------------------------------ no difference shown


def test_a_difference_of_perplexity_that_is_not_shown_has_a_limit() -> None:
    record = score_record(MODEL_INFO)
    seen = record.models[2].divergence
    assert seen is not None

    def lines(value: float, clustered: float) -> list[str]:
        ratio = Quantity(value, 0.001, clustered)
        model = record.models[2].model_copy(
            update={"divergence": dataclasses.replace(seen, log_ratio=ratio)}
        )
        return report.undetected(record.model_copy(update={"models": [model]}))

    # Eight windows: Student's t with 7 degrees of freedom, 2.365 + 0.896 standard errors.
    assert lines(0.01, 0.02) == [
        "NF4: no difference of perplexity shown; one of 6.7% would have been, in four of five cases"
    ]
    assert lines(0.10, 0.02) == []
    assert lines(0.0, 0.0001) == [  # the error by token is the larger one
        "NF4: no difference of perplexity shown; one of 0.3% would have been, in four of five cases"
    ]
