"""The progress of building a checkpoint, on a terminal and without one."""

from __future__ import annotations

import io

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from quantchat.console import progress_bars, stages
from quantchat.wire.messages import Progress

Capture = pytest.CaptureFixture[str]


def test_progress_without_a_terminal_is_lines(capsys: Capture) -> None:
    with stages.stage_display() as display:
        display(Progress("loading"))
        display(Progress("loading"))
        display(Progress("layer", 1, 2, "q_proj"))
        display(Progress("layer", 1, 2, "loss of q_proj 0.1"))
        display(Progress("bytes", 5, 100_000, "5 of 100000"))
    assert capsys.readouterr().err.splitlines() == ["loading", "layer 1 of 2: q_proj", "bytes"]


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_bars_in_a_terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    out = Console(file=io.StringIO(), force_terminal=True, width=width)
    monkeypatch.setattr(progress_bars, "console", lambda *, stderr: out)
    bar = progress_bars.bars(detail=True)
    bar.add_task("loading", total=None, detail="")
    bar.add_task("quantizing layer", total=30, completed=7, detail="67 s left · " + "q_proj, " * 30)
    bar.add_task("over", total=1, completed=1, detail="")
    with out.capture() as caught:
        out.print(*bar.get_renderables())
    lines = [line.rstrip() for line in Text.from_ansi(caught.get()).plain.splitlines()]
    # A terminal writes `^C` at the end of the last line: it must not be the start of a new one.
    assert max(map(cell_len, lines)) <= width - len("^C")
    loading, layer, over = lines[:3]
    assert "7/30" in layer and ("67 s left" in layer or width < 80)
    assert "/" not in loading + over  # nothing to count


def test_at_the_end_no_stage_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    out = Console(file=io.StringIO(), force_terminal=True, width=100)
    for module in (progress_bars, stages):
        monkeypatch.setattr(module, "console", lambda *, stderr: out)
    with out.capture() as caught, stages.stage_display() as display:
        display(Progress("perplexity after", 2, 3, "windows read"))
    last = Text.from_ansi(caught.get()).plain.rstrip().splitlines()[-1]
    assert "3/3" in last and "windows read" not in last
