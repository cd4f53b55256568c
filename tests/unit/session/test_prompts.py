"""Files of prompts: read correctly, or refused with the line number."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantchat.errors import UserError
from quantchat.session import prompts


def file(tmp_path: Path, name: str, content: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_text(tmp_path: Path) -> None:
    path = file(tmp_path, "p.txt", "one\n\n  two \r\n# three\n")
    assert prompts.read(path) == ("one", "two", "# three")


def test_jsonl(tmp_path: Path) -> None:
    path = file(tmp_path, "p.jsonl", '"one"\n\n{"prompt": "two\\nlines", "id": 3}\n')
    assert prompts.read(path) == ("one", "two\nlines")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.jsonl", '"one"\n{"promt": "x"}', r"p\.jsonl:2: no prompt"),
        ("p.jsonl", '"one"\n{', r"p\.jsonl:2: is not JSON"),
        ("p.jsonl", "[" * 100_000, "not JSON"),
        ("p.txt", "\n \n", "no prompts"),
        ("p.txt", b"\xff\xfe", "not UTF-8"),
    ],
)
def test_mistakes(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        prompts.read(file(tmp_path, name, content))


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(UserError, match="cannot read the prompts"):
            prompts.read(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prompts")


@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=1))
def test_jsonl_gives_back_what_was_written(folder: Path, texts: list[str]) -> None:
    body = "\n".join(json.dumps(text) for text in texts)
    assert prompts.read(file(folder, "p.jsonl", body)) == tuple(texts)


@given(st.binary(max_size=200), st.sampled_from(["p.txt", "p.jsonl"]))
def test_anything_is_read_or_refused(folder: Path, data: bytes, name: str) -> None:
    path = file(folder, name, data)
    try:
        assert all(prompts.read(path))
    except UserError as error:
        assert "\n" not in str(error)
