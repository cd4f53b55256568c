"""The texts that models are scored on."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

import pytest

from fakes.fake_hub import ask_at, serving
from quantchat import corpus
from quantchat.errors import UserError


def test_the_text_that_ships_holds_prose_code_and_dialogue() -> None:
    own = corpus.dataset("own")
    body = own.path.read_bytes()
    text = body.decode()
    assert own.sha256 == hashlib.sha256(body).hexdigest()
    assert len(text.split()) > 5000
    for part in (
        "The Last Ferry",
        "inventory.py",
        "#include <stdbool.h>",
        "SELECT m.name",
        "User:",
    ):
        assert part in text
    paragraphs = [part for part in text.split("\n\n") if len(part) > 200]
    assert len(paragraphs) == len(set(paragraphs)) > 50  # nothing is there twice


def test_wikitext_is_fetched_once_and_kept(
    tmp_path: Path, own_folders: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = tmp_path / "hub" / "ggml-org" / "ci"
    hub.mkdir(parents=True)
    with zipfile.ZipFile(hub / "wikitext-2-raw-v1.zip", "w") as archive:
        archive.writestr("wikitext-2-raw/wiki.test.raw", " \n = Robert Boulter = \n")
        archive.writestr("../outside", "never unpacked")
    with serving(tmp_path / "hub", kind="datasets/") as (address, asked):
        ask_at(address, monkeypatch)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
        first = corpus.dataset("wikitext-2")
        often = len(asked)
        assert often > 0
        second = corpus.dataset("wikitext-2")
        assert len(asked) == often
    assert first == second
    assert first.path.read_text("utf-8") == " \n = Robert Boulter = \n"
    assert not (tmp_path / "outside").exists()


def test_without_a_hub_it_is_said_what_to_take_instead(
    own_folders: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="cannot be fetched") as caught:
        corpus.dataset("wikitext-2")
    assert "--dataset own" in caught.value.hint


def test_a_name_that_is_none() -> None:
    with pytest.raises(UserError) as caught:
        corpus.dataset("\x1b]c4")
    assert caught.value.hint == "one of own, wikitext-2"
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"caf\xe9 " * 9, "no UTF-8 text"),
        (b"abc \xe2\x82", "no UTF-8 text"),  # the end of a character is missing
        (b" \n\t", "holds no text"),
        (b"", "holds no text"),
    ],
)
def test_a_file_that_is_no_text(tmp_path: Path, body: bytes, what: str) -> None:
    file = tmp_path / "text"
    file.write_bytes(body)
    with pytest.raises(UserError, match=what):
        corpus.text_file(file)


def test_a_character_across_the_blocks_that_are_read(tmp_path: Path) -> None:
    file = tmp_path / "text"
    file.write_bytes(b"x" * (2**20 - 1) + "€".encode())
    assert corpus.text_file(file).sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, what in (("pipe", "no regular file"), ("", "is a folder"), ("none", "no such file")):
        with pytest.raises(UserError, match=what):
            corpus.text_file(tmp_path / name)
    with pytest.raises(UserError):
        corpus.text_file(Path("nul\0"))
