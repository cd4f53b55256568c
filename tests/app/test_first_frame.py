"""The first frame needs no ML library; a static check of imports does not see late imports."""

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
from quantchat.session.comparison import Comparison
from quantchat.profile import library, load

class NothingIsMade:
    async def prepare(self, spec, on_progress):
        await asyncio.Event().wait()

def comparison(profile):
    return Comparison(profile, provider=NothingIsMade())

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
    *("psutil", "quantchat.system.sampler", "quantchat.snapshot.schema"),
    *(
        "quantchat.session.recorder",
        "quantchat.measuring.rounds",
        "quantchat.features.votes.voting",
    ),
    *("quantchat.host.environments", "quantchat.host.pip", "quantchat.wire.jobs"),
}
"""What is imported after the first frame, or when it is asked for: each costs milliseconds."""

UNTIL_THE_FRAME = """
import asyncio, sys
from quantchat.app.app import QuantchatApp
from quantchat.session.comparison import Comparison
from quantchat.profile import library, load

class OpensNothing(Comparison):
    def open(self):
        print(*sorted(sys.modules))

async def main():
    compare = lambda profile: OpensNothing(profile, provider=None)
    app = QuantchatApp(load.load(library.find("demo")), make_comparison=compare)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause()

asyncio.run(main())
"""

OF_THE_COMPARISON = {"pydantic", "tomllib", "quantchat.session", "quantchat.app.screens.comparison"}

UNTIL_THE_START = """
import asyncio, sys
from quantchat.app.app import QuantchatApp
from quantchat.app.screens.start import StartScreen

drawn = []
display = QuantchatApp._display

def listening(app, screen, renderable):
    if renderable is not None and not app._batch_count:
        drawn.append(screen)
    display(app, screen, renderable)

QuantchatApp._display = listening
StartScreen._fill = lambda screen: print(screen in drawn, *sorted(sys.modules))

async def main():
    async with QuantchatApp().run_test(size=(120, 40)) as pilot:
        await pilot.pause()

asyncio.run(main())
"""


def imported(program: str, *arguments: str, cwd: Path) -> set[str]:
    """What `program` prints, in a process of its own: names of modules."""
    result = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
    )
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


def test_until_the_first_frame_only_what_it_shows_is_imported(tmp_path: Path) -> None:
    found = imported(UNTIL_THE_FRAME, cwd=tmp_path)
    assert "quantchat.app.screens.comparison" in found
    assert not found & LATER


def test_the_start_is_drawn_before_profiles_and_snapshots_are_looked_for(tmp_path: Path) -> None:
    found = imported(UNTIL_THE_START, cwd=tmp_path)
    assert "quantchat.app.screens.start" in found
    assert "True" in found
    assert not found & (LATER | OF_THE_COMPARISON)


@pytest.mark.parametrize("profile", ["demo", ""])
def test_the_first_frame_imports_nothing_heavy(profile: str, tmp_path: Path) -> None:
    found = imported(FIRST_FRAME, profile, cwd=tmp_path)
    assert "textual" in found
    assert not found & HEAVY
