"""Runs the real screen in this process' terminal, over scripted workers.

Arguments: a folder for the logs and for `report.json`, which says how the run ended. Options:

- `--deaf` ignores SIGHUP, as under nohup;
- `--broken` raises in Ctrl+T and when the help is built;
- `--unmade` raises when the screen itself is built;
- `--stuck` makes Ctrl+T never return;
- `--slow` gives long answers;
- `--scripts` gives answers in many writing systems.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
from pathlib import Path

import quantchat.app
from quantchat.app import terminal

terminal.configure_textual()

import quantchat.app.app  # noqa: E402
from fakes.scripted_app import LEFT, RIGHT, profile  # noqa: E402
from fakes.scripted_machine import ScriptedMachine  # noqa: E402
from fakes.scripted_worker import Script, ScriptedProvider, starter  # noqa: E402
from fakes.writing_systems import WRITTEN  # noqa: E402
from quantchat.app.screens.comparison import ComparisonScreen  # noqa: E402
from quantchat.app.screens.help import HelpScreen  # noqa: E402
from quantchat.errors import UserError  # noqa: E402
from quantchat.profile.model import Profile  # noqa: E402
from quantchat.session.comparison import Comparison  # noqa: E402

folder = Path(sys.argv[1])
if "--stuck" not in sys.argv:
    terminal.CLEANUP_S = 60.0  # a busy machine takes its time for an end in good order
if "--deaf" in sys.argv:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
scripts = {LEFT: Script(), RIGHT: Script()}


def noisy(request: object) -> str:
    os.write(2, b"native noise")  # as a library's C code does
    return "The capital of France is Paris."


scripts[LEFT].answer = noisy
if "--scripts" in sys.argv:
    said = "\n\n".join(f"{name}: {text} end" for name, text in WRITTEN.items())
    for script in scripts.values():
        script.answer = lambda request: said
if "--slow" in sys.argv:
    scripts[RIGHT].answer = lambda request: "The sea is wide. " * 100_000


def compare(profile: Profile) -> Comparison:
    return Comparison(profile, provider=ScriptedProvider(scripts), start=starter(scripts, folder))


def broken(self: object) -> None:
    raise RuntimeError("a mistake of ours")


def stuck(self: object) -> None:
    os.read(os.pipe()[0], 1)  # nothing is ever written there


if "--stuck" in sys.argv:
    ComparisonScreen.action_order = stuck  # type: ignore[method-assign]
if "--broken" in sys.argv:
    ComparisonScreen.action_order = broken  # type: ignore[method-assign]
    HelpScreen.compose = broken  # type: ignore[method-assign,assignment]
if "--unmade" in sys.argv:
    ComparisonScreen.compose = broken  # type: ignore[method-assign,assignment]

quantchat.app.app.QuantchatApp = functools.partial(  # type: ignore[misc,assignment]
    quantchat.app.app.QuantchatApp, make_comparison=compare, make_sampler=ScriptedMachine
)
try:
    status = quantchat.app.run(profile(), snapshots=folder)
except UserError as error:
    sys.exit(f"quantchat: {error}")  # a traceback would be in colours of Python's own
report = {
    "status": status,
    "closed": [script.closed for script in scripts.values()],
    "modules": sorted(sys.modules),
}
(folder / "report.json").write_text(json.dumps(report))
sys.exit(status)
