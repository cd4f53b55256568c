"""Divergence and blind votes with the real model in a real pseudo-terminal."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.terminal import Terminal
from quantchat.profile import library

pytestmark = pytest.mark.model

ENTER, ESC, CTRL_S, CTRL_Q = "\r", "\x1b", "\x13", "\x11\x11"
WHERE_THEY_PART, SURPRISE, BLIND = "\x1d", "\x1f", "\x1c"
ROUNDING = 0.5
"""Nats that a probability's logarithm may move by when it is computed in other chunks: bfloat16 has
steps of an eighth between logits of 16 and 32. 0.22 was seen where two answers part at once."""
SURE = 3.0
"""Perplexity of a short greedy answer under its author, at most; 50,000 would be chance."""


def perplexity(surprise: dict[str, Any]) -> float:
    return math.exp(-sum(surprise["logprobs"]) / len(surprise["logprobs"]))


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


def short_demo(folder: Path) -> str:
    """The demo with short answers, as a profile of its own."""
    text = Path(library.find("demo")).read_text()
    assert "max_new_tokens = 256" in text
    path = folder / "short.toml"
    path.write_text(text.replace("max_new_tokens = 256", "max_new_tokens = 32"))
    return str(path)


def saved(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((folder / "snapshots").glob("*.json"))]


def test_where_they_part_what_surprises_and_a_blind_vote(demo_cache: Path, tmp_path: Path) -> None:
    with quantchat(demo_cache, tmp_path, short_demo(tmp_path)) as terminal:
        terminal.wait_for(lambda: terminal.text.count("● ready") == 2, "both sides ready")
        terminal.type("Name three rivers of Europe." + ENTER)
        # Where that is depends on what the checkpoint was calibrated on.
        terminal.wait_for_match(r"(same for \d+ tokens?, then|differ from the start:) ‘.* 0\.\d")
        terminal.type(WHERE_THEY_PART)
        terminal.type(SURPRISE)
        terminal.wait_for(lambda: terminal.text.count("under itself") == 2, "both perplexities")
        terminal.type(ESC)
        terminal.wait_for(lambda: "under itself" not in terminal.text, "the comparison")
        terminal.type(CTRL_S)
        terminal.wait_for_text("Snapshot saved")

        terminal.type(BLIND)
        terminal.wait_for_text("prompt 1 of 1", "both answers are complete")
        assert not [word for word in ("GPTQ", "NF4", "tok/s", "MiB") if word in terminal.text]
        terminal.type("a")
        terminal.wait_for_text("exact sign test p = 1.000", "no preference shown")
        terminal.type(ESC)
        terminal.wait_for(lambda: terminal.text.count("● ready") == 2, "the comparison")
        terminal.type(CTRL_Q)
        assert terminal.wait_for_exit() == 0

    chat, voted = saved(tmp_path)
    turn = chat["turns"][0]
    assert turn["divergence"]["point"] == turn["divergence_point"]
    for way, answer in zip(turn["divergence"]["continuations"], turn["answers"], strict=True):
        # Greedy: its own token was the likeliest, but for a tie; and both are real chances.
        assert 0 < way["own"] <= 1 and 0 < way["other"] <= 1
        assert math.log(way["own"]) >= math.log(way["other"]) - ROUNDING
        assert way["token"].strip() in answer["text"]
        own, other = sorted(
            answer["cross_perplexities"], key=lambda one: one["by"] != answer["variant"]
        )
        ended = answer["reason"] == "eos"
        assert len(own["logprobs"]) == len(other["logprobs"]) == len(answer["ids"]) + ended
        # Its own greedy answer is no surprise to it, nor much of one to another 4-bit variant.
        assert perplexity(own) < SURE and perplexity(other) < 4 * SURE
        point = turn["divergence"]["point"]
        if point < len(answer["ids"]):  # asked twice, and computed in other chunks
            assert own["logprobs"][point] == pytest.approx(math.log(way["own"]), abs=ROUNDING)
    (vote,) = voted["voting"]["votes"]
    assert vote["choice"] == "left"
    last = voted["turns"][-1]
    assert last["number"] == vote["turn"] and all(answer["text"] for answer in last["answers"])
