"""Runs the real screen in this process' terminal, over real processes that only play a model.

Arguments: a folder, for logs, snapshots and `report.json`; options of `quantchat` may follow. The
report says, for each answer, whether text and order came whole and how late tokens were.
"""

from __future__ import annotations

import functools
import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import quantchat.app
from quantchat.app import terminal

terminal.quieten_textual()

import quantchat.app.app  # noqa: E402
from fakes.scripted_app import LEFT, RIGHT, profile  # noqa: E402
from fakes.scripted_worker import Script, ScriptedMaker  # noqa: E402
from fakes.synthetic_text import text  # noqa: E402
from fakes.synthetic_worker import start_synthetic  # noqa: E402
from quantchat.bench.comparison import Comparison  # noqa: E402
from quantchat.bench.conversation import Answer, Turn  # noqa: E402
from quantchat.profile.model import Profile  # noqa: E402

folder = Path(sys.argv[1])
turns: list[Turn] = []
"""All that were begun: a new chat forgets its own."""


class Remembering(Comparison):
    def ask(self, prompt: str) -> Turn:
        turns.append(super().ask(prompt))
        return turns[-1]


def compare(profile: Profile) -> Comparison:
    scripts = {LEFT: Script(), RIGHT: Script()}
    return Remembering(profile, maker=ScriptedMaker(scripts), start=start_synthetic(folder))


def found(prompt: str, answer: Answer) -> dict[str, Any]:
    """What came of one answer, beside what was sent."""
    kind, _, count = prompt.split()
    gaps_ms = [(b - a) / 1e6 for a, b in pairwise(answer.times_ns)]
    said = len(answer.ids)
    return {
        "prompt": prompt,
        "reason": answer.reason,
        "tokens": said,
        "in_order": answer.ids == list(range(said)),
        "whole": "".join(answer.pieces) == answer.text
        and answer.text == text(kind, int(count))[: len(answer.text)]
        and (answer.reason != "eos" or said == int(count)),
        "rate": round((said - 1) / (sum(gaps_ms) / 1000), 1) if said > 1 else None,
        "longest_gap_ms": round(max(gaps_ms, default=0), 1),
    }


quantchat.app.app.QuantchatApp = functools.partial(  # type: ignore[misc,assignment]
    quantchat.app.app.QuantchatApp, make_comparison=compare
)
status = quantchat.app.run(
    profile(generation={"max_new_tokens": 10**6}), snapshots=folder / "snapshots"
)
answers = [found(turn.prompt, answer) for turn in turns for answer in turn.answers.values()]
(folder / "report.json").write_text(json.dumps({"status": status, "answers": answers}))
sys.exit(status)
