"""During a long stage, new log lines of a library are shown once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantchat.host import log_news
from quantchat.host.log_news import LogNews


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(log_news, "PATIENCE_S", 0.0)
    return tmp_path / "worker.log"


@pytest.mark.parametrize(
    ("printed", "line"),
    [
        ("", ""),
        ("one\ntwo\n", "two"),
        ("[1/3] nvcc a.cu\r[2/3] nvcc b.cu", "[2/3] nvcc b.cu"),
        ("\x1b[32mgreen\x1b[0m  and \t wide\n\n  \n", "green and wide"),
        ("x" * 10_000 + "\nlast", "last"),
    ],
)
def test_the_last_line_with_words(log: Path, printed: str, line: str) -> None:
    log.write_text(printed)
    assert LogNews(log).line() == line


def test_only_what_is_new(log: Path) -> None:
    log.write_text("compiling\n")
    news = LogNews(log)
    assert [news.line(), news.line()] == ["compiling", ""]
    log.write_text("compiling\nlinking\n")
    assert news.line() == "linking"


def test_nothing_of_a_short_stage_and_of_no_log(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert LogNews(log).line() == ""
    log.write_text("a warning\n")
    monkeypatch.setattr(log_news, "PATIENCE_S", 3600.0)
    assert LogNews(log).line() == ""


def test_a_secret_of_the_environment_is_not_shown(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_0123456789abcdef")
    log.write_text("fetching with hf_0123456789abcdef\n")
    assert "0123456789" not in LogNews(log).line()


@given(st.binary(max_size=200))
def test_any_bytes_give_one_line(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    log = tmp_path_factory.mktemp("log") / "worker.log"
    log.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_news, "PATIENCE_S", 0.0)
        assert len(LogNews(log).line().splitlines()) <= 1
