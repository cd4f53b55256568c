"""`quantchat run`: arguments that it refuses before it starts anything, and where it saves."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantchat.cli import main
from quantchat.features.measure.tables import WIDEST, ratio_texts
from quantchat.statistics.intervals import Ratio

SERVER = """
name = "servers"
[[variants]]
label = "one"
engine = "openai"
model = "m"
base_url = "http://127.0.0.1:9/v1"
[[variants]]
label = "two"
engine = "bitsandbytes"
model = "org/m"
"""

pytestmark = pytest.mark.usefixtures("own_folders")


def test_prompt_lengths_against_a_server_are_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile = tmp_path / "p.toml"
    profile.write_text(SERVER)
    assert main(["run", str(profile), "--prompt-tokens", "128"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('quantchat: --prompt-tokens: "one" runs on a server')


def test_a_file_that_is_no_snapshot_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "package.json").write_text("{}")
    assert main(["run", "demo", "-o", str(tmp_path / "package.json")]) == 2
    assert "exists and is not a snapshot" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.002, 4967.0, "too wide to be useful: measure more rounds"),
        (0.5, 0.5 * WIDEST * 1.01, "too wide to be useful: measure more rounds"),
        (0.5, 2.0, "0.500 to 2.000, no difference shown"),
        (1.4, 1.6, "1.400 to 1.600"),
    ],
)
def test_an_interval_that_says_nothing_is_not_printed(low: float, high: float, said: str) -> None:
    assert ratio_texts(Ratio(1.5, low, high, 25, 5, 5, "prompt"))[1] == said
