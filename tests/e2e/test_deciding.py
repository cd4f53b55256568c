"""Where answers part, and blind votes, with the real model in a real pseudo-terminal."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.terminal import Terminal

pytestmark = pytest.mark.model

ENTER, ESC, CTRL_S, CTRL_Q, WHERE_THEY_PART = "\r", "\x1b", "\x13", "\x11", "\x1d"
TIE = 0.02
"""Probabilities this close, of two tokens under one model, may be one rounding apart."""


@contextlib.contextmanager
def quantchat(cache: Path, folder: Path, *words: str) -> Iterator[Terminal]:
    folders = {"QUANTCHAT_CACHE": cache, "QUANTCHAT_SNAPSHOTS": folder / "snapshots"}
    folders |= {"QUANTCHAT_LOGS": folder / "logs", "QUANTCHAT_CONFIG": folder / "config"}
    terminal = Terminal(
        [sys.executable, "-m", "quantchat", *words],
        cwd=folder,
        env={name: str(path) for name, path in folders.items()},
    )
    try:
        yield terminal
    finally:
        terminal.close()


def saved(folder: Path) -> dict[str, Any]:
    (path,) = (folder / "snapshots").glob("*.json")
    body: dict[str, Any] = json.loads(path.read_text())
    return body


def test_where_greedy_answers_part(demo_cache: Path, tmp_path: Path) -> None:
    with quantchat(demo_cache, tmp_path, "demo") as terminal:
        terminal.wait_for(lambda: terminal.text.count("● ready") == 2, "both sides ready")
        terminal.type("Name three rivers of Europe." + ENTER)
        terminal.wait_for_text("same for ", ", then ‘", " 0.")
        terminal.type(WHERE_THEY_PART)
        terminal.type(CTRL_S)
        terminal.wait_for_text("Snapshot saved")
        turn = saved(tmp_path)["turns"][0]
        parting = turn["parting"]
        assert parting["point"] == turn["divergence_point"]
        for way, answer in zip(parting["ways"], turn["answers"], strict=True):
            # Greedy: its own token was the likeliest, but for a tie; and both are real chances.
            assert 0 < way["own"] <= 1 and 0 <= way["other"] <= 1
            assert way["own"] >= way["other"] - TIE
            assert way["token"].strip() in answer["text"]
        terminal.type(CTRL_Q)
        assert terminal.wait_for_exit() == 0


def test_blind_votes(demo_cache: Path, tmp_path: Path) -> None:
    prompts = ("What is 2 + 2?", "What is the capital of France?")
    words = [word for prompt in prompts for word in ("--prompt", prompt)]
    with quantchat(demo_cache, tmp_path, "vote", "demo", "--seed", "7", *words) as terminal:
        for number, key in ((1, "a"), (2, "t")):
            terminal.wait_for_text(f"prompt {number} of 2", "both answers are over")
            assert not [word for word in ("GPTQ", "NF4", "tok/s", "MiB") if word in terminal.text]
            terminal.type(key)
        terminal.wait_for_text("ties 1", "exact sign test p = 1.000")
        body = saved(tmp_path)
        assert body["voting"]["seed"] == 7
        assert [vote["choice"] for vote in body["voting"]["votes"]] == ["left", "tie"]
        assert all(answer["text"] for turn in body["turns"] for answer in turn["answers"])
        terminal.type(ESC)
        assert terminal.wait_for_exit() == 0
