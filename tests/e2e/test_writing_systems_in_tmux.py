"""In tmux the rules of the columns stand in one line beside text of every writing system."""

from __future__ import annotations

from pathlib import Path

import pytest

from fakes.tmux import SCRIPTED, Tmux, command_line
from fakes.waiting import wait_for
from fakes.writing_systems import WRITTEN

RULE = "▏"
COLUMNS, ROWS = 100, 70


@pytest.mark.parametrize("part", [("Hindi", "Thai"), ("family", "flags", "hearts", "skins")])
def test_the_rules_stay_where_they_are(tmux: Tmux, tmp_path: Path, part: tuple[str, ...]) -> None:
    program = command_line([*SCRIPTED, str(tmp_path), "--scripts"], tmp_path)
    tmux("new-session", "-d", "-x", str(COLUMNS), "-y", str(ROWS), program)
    wait_for(lambda: tmux.text.count("● ready") == 2, "both ready")
    tmux("send-keys", " ".join(WRITTEN[name] for name in part), "Enter")
    wait_for(lambda: tmux.text.count("letters: plain words end") == 2, "both answers")
    for name in part:
        assert tmux.text.count(f"{name}: ") == 2
    places = tmux.places_of(RULE)
    of_columns = [place for place in places if place[0] in (0, COLUMNS // 2)]
    rows = sorted({y for _, y in of_columns})
    assert rows == list(range(rows[0], rows[-1] + 1))
    assert len(rows) > len(WRITTEN)
    # Each row has both rules: one that text had pushed aside would be missing.
    assert of_columns == [(x, y) for y in rows for x in (0, COLUMNS // 2)]
