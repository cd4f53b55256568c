"""Each way to fail has words of its own above its reason."""

from __future__ import annotations

import re
from pathlib import Path

import quantchat
from quantchat.app.widgets.failure_note import TITLES

KIND = re.compile(r'\b(?:Failed|Refused)\(\s*"(\w+)"')


def test_each_kind_of_failure_has_a_title() -> None:
    sources = Path(quantchat.__file__).parent.rglob("*.py")
    kinds = {kind for file in sources for kind in KIND.findall(file.read_text(encoding="utf-8"))}
    assert {"fetch_failed", "no_space", "cannot_start"} <= kinds
    stopped = {"stopped"}  # on the user's own wish, which is no failure to be told of
    assert not kinds - stopped - TITLES.keys()
