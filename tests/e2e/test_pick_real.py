"""A pick of real models in a real pseudo-terminal: stopped, and continued to the end."""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from fakes.terminal import LOADING_S, Terminal
from quantchat.snapshot import store
from quantchat.snapshot.schema import Snapshot

pytestmark = pytest.mark.model

CTRL_C = "\x03"


def profile(folder: Path) -> Path:
    """Write a profile of two variants whose labels no other pick in the cache has."""
    mark = uuid.uuid4().hex[:8]
    body = 'name = "picked"\n'
    for label, keys in (
        ("GPTQ", 'engine = "gptq"\n[variants.quantize]\nbits = 4\ngroup_size = 64\n'),
        ("bf16", 'engine = "transformers"\ndtype = "bfloat16"\n'),
    ):
        body += f'[[variants]]\nlabel = "{label} {mark}"\nmodel = "demo:smollm2-135m-instruct"\n'
        body += keys
    path = folder / "picked.toml"
    path.write_text(body)
    return path


def pick(asked: Path, demo_cache: Path, folder: Path) -> Terminal:
    command = [sys.executable, "-m", "quantchat", "pick", str(asked)]
    command += ["--rounds", "2", "--max-new-tokens", "4", "--tokens", "512", "--prompt", "Hello"]
    return Terminal(
        [*command, "--prefer", "closest", "--save", str(folder / "snapshots")],
        rows=60,
        cwd=folder,
        env={
            "QUANTCHAT_CACHE": str(demo_cache),
            "QUANTCHAT_LOGS": str(folder / "logs"),
            "QUANTCHAT_CONFIG": str(folder / "config"),
        },
    )


def measured(cache: Path, asked: Path) -> dict[str, Any]:
    """Return what the pick of the profile `asked` has kept of each measured variant, by label."""
    mark = asked.read_text().split('label = "GPTQ ')[1][:8]
    for file in (cache / "picks").glob("*/state.json"):
        kept = json.loads(file.read_bytes())["candidates"]
        if any(mark in label for label in kept):
            return {label: one for label, one in kept.items() if one["turns"]}
    return {}


def saved(folder: Path) -> Snapshot:
    (path,) = (folder / "snapshots").glob("*.json")
    found = store.load(path)
    path.unlink()
    return found


def answer_times(snapshot: Snapshot, label: str) -> list[list[int]]:
    """Return the times of the tokens of each answer of the variant `label`."""
    answers = [answer for turn in snapshot.turns for answer in turn.answers]
    return [answer.times_ns for answer in answers if answer.variant == label]


def test_stopped_and_continued(demo_cache: Path, tmp_path: Path) -> None:
    asked = profile(tmp_path)
    first = pick(asked, demo_cache, tmp_path)
    try:
        first.wait_for(
            lambda: len(measured(demo_cache, asked)) == 1, "one variant measured", 3 * LOADING_S
        )
        first.type(CTRL_C)
        assert first.wait_for_exit() in (0, 2)
    finally:
        first.close()
    stopped = saved(tmp_path)
    assert stopped.pick is not None and "the same command continues" in stopped.pick.stopped
    (label,) = measured(demo_cache, asked)

    second = pick(asked, demo_cache, tmp_path)
    try:
        assert second.wait_for_exit(3 * LOADING_S) == 0
        # bf16 is the reference, so it is the closest.
        second.wait_for_text("measured one after the other", "Take bf16", "Runner-up: GPTQ")
    finally:
        second.close()
    found = saved(tmp_path)
    assert found.pick is not None and not found.pick.stopped
    assert all(one.speed and one.kld and one.memory for one in found.pick.candidates)
    before, after = answer_times(stopped, label), answer_times(found, label)
    assert before and before == after, "it was not measured a second time"
    assert not measured(demo_cache, asked), "a finished pick leaves nothing in the cache"
