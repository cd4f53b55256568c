"""Runs the real screen in this process' terminal, over real worker processes without a model.

Arguments: a folder for logs, snapshots and `report.json`; optionally `--low-bandwidth`, and
`--history TOKENS` for a conversation that already has so many tokens on each side. The report says
for each answer whether text and order are complete, and how late tokens were.
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

LOW_BANDWIDTH = True if "--low-bandwidth" in sys.argv else None
terminal.configure_textual(LOW_BANDWIDTH)

import quantchat.app.app  # noqa: E402
from fakes.scripted_app import LEFT, RIGHT, profile  # noqa: E402
from fakes.scripted_worker import Script, ScriptedProvider  # noqa: E402
from fakes.synthetic_text import text, tokens, wanted  # noqa: E402
from fakes.synthetic_worker import start_synthetic  # noqa: E402
from quantchat.profile.model import Profile  # noqa: E402
from quantchat.session.comparison import Comparison  # noqa: E402
from quantchat.session.conversation import Answer, AnswerState, Conversation, Turn  # noqa: E402

PER_TURN = 250
folder = Path(sys.argv[1])
turns: list[Turn] = []
"""Those that were begun and not yet looked at: a new chat forgets its own."""
answers: list[dict[str, Any]] = []
"""What came of the others. No turn is kept for it: a soak would find that memory grows."""


def look_at_turns() -> None:
    answers.extend(found(turn.prompt, one) for turn in turns for one in turn.answers.values())
    turns.clear()


class Remembering(Comparison):
    def ask(self, prompt: str) -> Turn:
        turn = super().ask(prompt)
        look_at_turns()
        turns.append(turn)
        return turn


def compare(profile: Profile) -> Comparison:
    scripts = {LEFT: Script(), RIGHT: Script()}
    comparison = Remembering(
        profile, provider=ScriptedProvider(scripts), start=start_synthetic(folder)
    )
    if "--history" in sys.argv:
        remember(comparison.conversation, int(sys.argv[sys.argv.index("--history") + 1]))
    return comparison


def remember(conversation: Conversation, count: int) -> None:
    """Let `conversation` hold turns of `PER_TURN` tokens, `count` in all of each side."""
    for _ in range(count // PER_TURN):
        answers = [Answer(label, "together", AnswerState.DONE) for label in (LEFT, RIGHT)]
        for answer in answers:
            answer.ids = list(range(PER_TURN))
            answer.pieces = tokens("prose", PER_TURN)
            answer.text = "".join(answer.pieces)
            answer.times_ns = [10**9 + 3 * 10**6 * n for n in range(PER_TURN)]
            answer.received_ns, answer.reason = 10**9 - 10**8, "eos"
        conversation.begin(f"prose 300 {PER_TURN}", answers)


def found(prompt: str, answer: Answer) -> dict[str, Any]:
    """What came of one answer, beside what was sent."""
    kind, _, count, _ = wanted(prompt)
    gaps_ms = [(b - a) / 1e6 for a, b in pairwise(answer.times_ns)]
    said = len(answer.ids)
    return {
        "prompt": prompt,
        "reason": answer.reason,
        "tokens": said,
        "in_order": answer.ids == list(range(said)),
        "whole": "".join(answer.pieces) == answer.text
        and answer.text == text(kind, count)[: len(answer.text)]
        and (answer.reason != "eos" or said == count),
        "rate": round((said - 1) / (sum(gaps_ms) / 1000), 1) if said > 1 else None,
        "longest_gap_ms": round(max(gaps_ms, default=0), 1),
    }


quantchat.app.app.QuantchatApp = functools.partial(  # type: ignore[misc,assignment]
    quantchat.app.app.QuantchatApp, make_comparison=compare
)
status = quantchat.app.run(
    profile(generation={"max_new_tokens": 10**6}),
    snapshots=folder / "snapshots",
    low_bandwidth=LOW_BANDWIDTH,
)
look_at_turns()
(folder / "report.json").write_text(json.dumps({"status": status, "answers": answers}))
sys.exit(status)
