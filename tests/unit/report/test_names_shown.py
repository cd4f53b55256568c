"""A name with control sequences is printed as plain text everywhere."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from fakes.model_folder import LLAMA_2_7B, llama_tensors, write_model
from fakes.page_reader import PageReader
from fakes.printed_document import printed
from fakes.safe_line import is_clean
from fakes.saved_measurement import measured
from fakes.saved_snapshots import MODEL_INFO, SAMPLE, answer, snapshot, variant
from fakes.scripted_machine import GPU
from quantchat.app.screens.log import tail
from quantchat.checkpoints.cache import CheckpointCache
from quantchat.cli import main
from quantchat.cli.cache import cache_table
from quantchat.console import progress, stages
from quantchat.document.html import html
from quantchat.document.markdown import markdown
from quantchat.features.memory_plan import tables as plan_report
from quantchat.measuring.memory_plan import make_plan
from quantchat.profile.model import Profile
from quantchat.report.content import content
from quantchat.report.csv_tables import tables
from quantchat.session import from_models
from quantchat.snapshot.schema import Snapshot, TurnRecord
from quantchat.text import neutralise
from quantchat.wire.messages import Failed, Progress

NAME = "w\x1b]0;t\x07\x9b2J\u202e.safetensors"
SHOWN = "w␛]0;t␇⟨9B⟩2J⟨202E⟩.safetensors"

PROFILE = """
name = "p"
variants = [
    { label = "A", engine = "transformers", model = "./m" },
    { label = "B", engine = "transformers", model = "./m" },
]
"""

Capture = pytest.CaptureFixture[str]


def neutral(text: str) -> str:
    """`text`, each line of which was seen to be harmless, without the breaks a table makes."""
    assert neutralise(text) == text
    assert all(is_clean(line.replace("\t", " ")) for line in text.splitlines())
    return "".join(text.split())


def hostile() -> Snapshot:
    """A snapshot of variants that are called so, run so, and fail so."""
    told: dict[str, Any] = {
        each.name: NAME for each in dataclasses.fields(MODEL_INFO) if each.type == "str"
    }
    runs = dataclasses.replace(MODEL_INFO, libraries={NAME: NAME}, **told)
    failed = Failed("internal", NAME, NAME)
    return snapshot(
        name=NAME,
        shown=[NAME, "B"],
        variants=[variant(NAME, model_info=runs, note=NAME), variant("B", failure=failed)],
        turns=[
            TurnRecord(
                number=1,
                prompt="p",
                answers=[answer(NAME), answer("B", state="failed", failure=failed)],
                divergence_point=None,
            )
        ],
    )


def test_a_report_as_html() -> None:
    page = html(content([(NAME, hostile())])).decode()
    assert neutralise(page) == page
    assert SHOWN in PageReader(page.encode()).text


def test_a_report_as_markdown() -> None:
    text = markdown(content([(NAME, hostile())]), "files").decode()
    assert neutralise(text) == text
    assert "⟨202E⟩" in text


def test_a_report_as_csv(tmp_path: Path) -> None:
    for data in tables([(NAME, hostile()), ("b.json", measured(tmp_path))]).values():
        text = data.decode()
        assert neutralise(text.replace("\r\n", "\n")) == text.replace("\r\n", "\n")
    assert SHOWN in tables([(NAME, hostile())])["answers.csv"].decode()


def test_the_stages_of_run(capsys: Capture) -> None:
    progress._Lines().on_model(NAME, Progress(NAME, 1, 2, NAME))
    assert neutral(capsys.readouterr().err).count(SHOWN) == 2


def test_the_stages_of_making_a_checkpoint(capsys: Capture) -> None:
    stages._Lines()(Progress(NAME, 1, 2, NAME))
    assert neutral(capsys.readouterr().err).count(SHOWN) == 2


def test_a_plan(tmp_path: Path) -> None:
    write_model(tmp_path / "m", LLAMA_2_7B, llama_tensors(LLAMA_2_7B))
    one = {"engine": "transformers", "model": str(tmp_path / "m"), "device": "cuda:0"}
    labels = ("a\u202e", "b\u2066")  # a profile takes no control characters
    profile = Profile.model_validate(
        {"name": "p\u202e", "variants": [{**one, "label": label} for label in labels]}
    )
    machine = dataclasses.replace(SAMPLE, gpus=[dataclasses.replace(GPU, name=NAME)])
    text = neutral(printed(plan_report.blocks(make_plan(profile, machine))))
    assert "a⟨202E⟩" in text and SHOWN in text


def test_an_index_that_names_a_file(tmp_path: Path, own_folders: None, capsys: Capture) -> None:
    folder = write_model(tmp_path / "m", LLAMA_2_7B, llama_tensors(LLAMA_2_7B), shards=2)
    index = folder / "model.safetensors.index.json"
    told = json.loads(index.read_text())
    told["weight_map"] = dict.fromkeys(told["weight_map"], NAME)
    index.write_text(json.dumps(told))
    (profile := tmp_path / "p.toml").write_text(PROFILE)
    assert main(["plan", str(profile), "--offline"]) == 1
    out, err = capsys.readouterr()
    assert SHOWN in neutral(out + err)


def test_what_a_server_lists(
    own_folders: None, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(from_models, "served_models", lambda base: [NAME, "other"])
    assert main(["http://localhost:9/v1", "http://localhost:9/v1"]) == 2
    assert SHOWN in neutral(capsys.readouterr().err)


def test_a_log(tmp_path: Path) -> None:
    (log := tmp_path / "a.log").write_text(f"loading {NAME}\n")
    assert SHOWN in neutral(tail(log))


def test_the_list_of_checkpoints(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    assert SHOWN in neutral(printed(cache_table(CheckpointCache(tmp_path).entries())))
