"""Runs the real screen in this process' terminal, over workers that send hostile text.

Argument: a folder, for logs and snapshots. To the prompt `say 20 120` the left side answers with
the payloads 20 to 119 of `hostile_text`, the right side with their other copies; to `fail` both
fail with a hostile reason. What the workers report about themselves is hostile too.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import quantchat.app
from quantchat.app import terminal

terminal.configure_textual()

import quantchat.app.app  # noqa: E402
from fakes import hostile_markdown  # noqa: E402
from fakes.hostile_text import COPIES, COUNT, CUT, payload  # noqa: E402
from fakes.scripted_app import LEFT, RIGHT, profile  # noqa: E402
from fakes.scripted_machine import ScriptedMachine  # noqa: E402
from fakes.scripted_worker import Script, ScriptedProvider, model_info, starter  # noqa: E402
from quantchat.profile.model import Profile  # noqa: E402
from quantchat.session.comparison import Comparison  # noqa: E402
from quantchat.wire.messages import Failed, Generate  # noqa: E402

STEP = 101
"""Every so many payloads one is told where there is no place for all."""


def some(first: int, joint: str = " ") -> str:
    return joint.join(payload(number).replace(CUT, "") for number in range(first, COUNT, STEP))


def answer(script: Script, side: int, request: Generate) -> str:
    kind, *numbers = request.messages[-1].content.split()
    script.answer_fails = None
    if kind == "fail":
        script.answer_fails = Failed("internal", some(1 + side), some(3 + side))
        return "Nothing of the kind."
    first, end = (int(number) + side * (COUNT // COPIES) for number in numbers[:2])
    return hostile_markdown.answer(range(first, end), shift=side)


def hostile(side: int) -> Script:
    script = Script(
        model_info=model_info(kernel=some(5 + side)),
        note=some(7 + side),
        log=some(9 + side, "\n"),
        cut=hostile_markdown.chunks,
        batch=1000,
    )
    script.answer = functools.partial(answer, script, side)
    return script


def main(folder: Path) -> int:
    scripts = {LEFT: hostile(0), RIGHT: hostile(1)}

    def compare(profile: Profile) -> Comparison:
        return Comparison(
            profile, provider=ScriptedProvider(scripts), start=starter(scripts, folder)
        )

    quantchat.app.app.QuantchatApp = functools.partial(  # type: ignore[misc,assignment]
        quantchat.app.app.QuantchatApp, make_comparison=compare, make_sampler=ScriptedMachine
    )
    return quantchat.app.run(
        profile(generation={"max_new_tokens": 2**20}), snapshots=folder / "snapshots"
    )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
