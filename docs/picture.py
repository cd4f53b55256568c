"""Make `docs/screen.svg`: the real screen, with the real model's answers on it.

Run it from anywhere: `python docs/picture.py`. It uses the checkpoints of the user's cache folder
and makes them first where they are missing.
"""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

from quantchat.app.app import QuantchatApp
from quantchat.app.screens.comparison import ComparisonScreen
from quantchat.profile import library, load
from quantchat.session.live_variant import State

SIZE = (120, 40)
PROMPT = "Why is the sky blue? Answer in two sentences."
TARGET = Path(__file__).with_name("screen.svg")


async def picture() -> str:
    """Load the demo, ask, wait until the divergence is scored; return the screen as SVG."""
    os.environ["COLORTERM"] = "truecolor"  # so that the picture has all colours on any machine
    app = QuantchatApp(load.load(library.find("demo")))
    async with app.run_test(size=SIZE) as pilot:
        screen = app.screen
        assert isinstance(screen, ComparisonScreen)
        comparison = screen.comparison
        while not all(variant.state is State.READY for variant in comparison.sides):
            failed = [v.failure for v in comparison.sides if v.failure]
            if failed:
                raise SystemExit(f"a variant does not load: {failed[0].reason}")
            await pilot.pause(0.2)
        screen.prompt.text = PROMPT
        await pilot.press("enter")
        # The answers diverge: the line below them has probabilities once these are computed.
        while not (comparison.last_turn and comparison.last_turn.divergence):
            await pilot.pause(0.2)
        await pilot.pause(1)
        svg = app.export_screenshot(title="quantchat demo")
    # Leave out the fonts that a viewer would fetch: each has a monospaced font of its own.
    return re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)


if __name__ == "__main__":
    TARGET.write_text(asyncio.run(picture()), encoding="utf-8")
    print(f"wrote {TARGET}")
