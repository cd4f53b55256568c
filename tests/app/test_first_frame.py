"""The screen comes up without the ML libraries: a static contract does not see late imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {
    *("torch", "transformers", "bitsandbytes", "gptqmodel", "accelerate", "numpy", "scipy"),
    *("markdown_it", "linkify_it", "pygments", "jinja2", "matplotlib"),
}

FIRST_FRAME = """
import asyncio, sys
from quantchat.app.app import QuantchatApp
from quantchat.bench.comparison import Comparison
from quantchat.profile import library, load

class NothingIsMade:
    async def prepare(self, spec, on_progress):
        await asyncio.Event().wait()

def comparison(profile):
    return Comparison(profile, maker=NothingIsMade())

async def main(name):
    profile = load.load(library.find(name)) if name else None
    app = QuantchatApp(profile, make_comparison=comparison)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()
        assert "quantchat" in app.export_screenshot()

asyncio.run(main(sys.argv[1]))
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


LATER = {
    *("psutil", "quantchat.metrics.sampler", "quantchat.snapshot.schema"),
    *("quantchat.bench.record", "quantchat.bench.rounds", "quantchat.bench.voting"),
}
"""What is imported after the first frame, or when it is asked for: each costs milliseconds."""

UNTIL_THE_FRAME = """
import asyncio, sys
from quantchat.app.app import QuantchatApp
from quantchat.bench.comparison import Comparison
from quantchat.profile import library, load

class OpensNothing(Comparison):
    def open(self):
        print(*sorted(sys.modules))

async def main():
    compare = lambda profile: OpensNothing(profile, maker=None)
    app = QuantchatApp(load.load(library.find("demo")), make_comparison=compare)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()

asyncio.run(main())
"""


def test_until_the_first_frame_only_what_it_shows_is_imported(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", UNTIL_THE_FRAME],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    imported = set(result.stdout.split())
    assert "quantchat.app.screens.comparison" in imported
    assert not imported & LATER


@pytest.mark.parametrize("profile", ["demo", ""])
def test_the_first_frame_imports_nothing_heavy(profile: str, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", FIRST_FRAME, profile],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    imported = set(result.stdout.split())
    assert "textual" in imported
    assert not imported & HEAVY
