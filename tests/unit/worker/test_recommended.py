"""The sampling settings that a model's own files recommend."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from quantchat.worker.model.recommended import of_folder, of_gguf


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (
            {"do_sample": True, "temperature": 0.6, "top_k": 20, "eos_token_id": [1, 2]},
            {"temperature": 0.6, "top_k": 20.0},
        ),
        ({"temperature": 0.6}, {"temperature": 0.6}),
        ({"do_sample": False, "top_p": 0.9}, {"temperature": 0.0}),
        ({"temperature": "warm", "top_p": True, "min_p": None}, {}),
        ([], {}),
    ],
)
def test_of_a_generation_config(tmp_path: Path, written: Any, expected: dict[str, float]) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps(written))
    assert of_folder(str(tmp_path)) == expected


def test_without_a_readable_file_nothing_is_recommended(tmp_path: Path) -> None:
    assert of_folder(str(tmp_path)) == {}
    (tmp_path / "generation_config.json").write_text("{")
    assert of_folder(str(tmp_path)) == {}


def test_of_a_gguf_file() -> None:
    metadata = {"general.sampling.temp": 0.6000000238418579, "general.sampling.top_k": 20, "x": 1}
    assert of_gguf(metadata) == {"temperature": 0.6, "top_k": 20.0}
